//! Which of the eligible nodes serves a read.
//!
//! Two of the best nodes are drawn at random, and the read goes to the one with the lower cost. The cost is load in
//! flight × latency ÷ weight. This is the *power of two choices*. It avoids slow nodes almost as well as a
//! comparison of all nodes. But it doesn't send all reads to the node that was the best a moment ago.
//!
//! Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.

use std::time::Duration;

use fastrand::Rng;

use super::eligibility::Rank;

/// A node that may serve a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Index of the node in the snapshot.
    pub(crate) node: usize,
    pub(crate) rank: Rank,
    /// Reads in flight on the node.
    pub(crate) load: u32,
    /// Reads in flight whose answer takes far longer than usual.
    pub(crate) overdue: u32,
    /// Average time of the node's answers, if known.
    pub(crate) latency: Option<Duration>,
    pub(crate) weight: u32,
}

/// Extra load, in reads, for which an overdue answer counts.
///
/// A node that hangs gets no new reads while another one has free connections. A node with a single long report
/// still gets reads when the others are busy.
const OVERDUE_LOAD: f64 = 4.0;

impl Candidate {
    fn cost(&self, unknown: Duration) -> f64 {
        let latency = coarse(self.latency.unwrap_or(unknown));
        let load = f64::from(self.load) + OVERDUE_LOAD * f64::from(self.overdue);
        (load + 1.0) * latency / f64::from(self.weight.max(1))
    }
}

/// Latencies are compared in powers of two above this value.
///
/// The value is more than the difference between two zones of a region. Smaller differences are noise, and no
/// reason to leave a node idle. An overloaded node shows in its load instead.
const FINE: Duration = Duration::from_millis(5);

/// Returns a latency in units of [`FINE`], rounded to a power of two.
///
/// With exact values, the faster of two equal nodes would get every read under light load, and the other one would
/// grow cold.
fn coarse(latency: Duration) -> f64 {
    let ratio = latency.as_secs_f64() / FINE.as_secs_f64();
    ratio.max(1.0).log2().round().exp2()
}

/// Removes the next node to try from the candidates; `None` if none is left.
///
/// A node without a timed answer counts as fast as the fastest, so that it gets some reads.
pub(crate) fn take(candidates: &mut Vec<Candidate>, rng: &mut Rng) -> Option<Candidate> {
    let best = candidates.iter().map(|candidate| candidate.rank).min()?;
    let in_turn = candidates.iter().filter(|candidate| candidate.rank.last == best.last);
    let unknown = in_turn.filter_map(|candidate| candidate.latency).min().unwrap_or_default();
    let of_rank = || (0..candidates.len()).filter(|i| candidates[*i].rank == best);
    let count = of_rank().count();
    // Two distinct places in the rank, drawn without building a list, because every read passes here.
    let first = rng.usize(..count);
    let second = if count > 1 { (first + rng.usize(1..count)) % count } else { first };
    let cost = |place: usize| of_rank().nth(place).map(|i| (i, candidates[i].cost(unknown)));
    let (first, second) = (cost(first)?, cost(second)?);
    let (cheapest, _) = if second.1 < first.1 { second } else { first };
    Some(candidates.swap_remove(cheapest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::super::eligibility::Tier;
    use super::*;

    fn candidate(node: usize, tier: Tier, load: u32, micros: u64) -> Candidate {
        let rank = Rank { last: false, tier };
        Candidate { node, rank, load, overdue: 0, latency: Some(Duration::from_micros(micros)), weight: 1 }
    }

    fn shares(candidates: &[Candidate], rounds: u32) -> Vec<u32> {
        let mut rng = Rng::with_seed(1);
        let mut shares = vec![0; candidates.len()];
        for _ in 0..rounds {
            let taken = take(&mut candidates.to_vec(), &mut rng).expect("there are candidates");
            shares[taken.node] += 1;
        }
        shares
    }

    #[test]
    fn equal_nodes_share_the_reads_and_a_slow_one_gets_few() {
        let equal: Vec<_> = (0..4).map(|node| candidate(node, Tier::Fit, 3, 500)).collect();
        assert!(shares(&equal, 4000).iter().all(|share| (850..1150).contains(share)));
        let mut one_slow = equal;
        one_slow[2].latency = Some(Duration::from_millis(80));
        assert_eq!(shares(&one_slow, 4000)[2], 0);
    }

    #[test]
    fn nearly_equal_nodes_share_the_reads() {
        let candidates = [candidate(0, Tier::Fit, 0, 150), candidate(1, Tier::Fit, 0, 4_000)];
        assert!(shares(&candidates, 1000).iter().all(|share| (400..600).contains(share)));
    }

    #[test]
    fn weight_and_load_decide_the_share_of_a_node() {
        let mut heavy = candidate(0, Tier::Fit, 9, 500);
        heavy.weight = 4;
        assert_eq!(shares(&[heavy, candidate(1, Tier::Fit, 2, 500)], 100), [100, 0]);
    }

    /// A node that hung got its share until its monitor marked it down.
    #[test]
    fn a_node_whose_answers_are_overdue_gets_less() {
        let mut hangs = candidate(0, Tier::Fit, 3, 500);
        hangs.overdue = 3;
        assert_eq!(shares(&[hangs, candidate(1, Tier::Fit, 9, 500)], 100), [0, 100]);
        let mut reports = candidate(0, Tier::Fit, 1, 500);
        reports.overdue = 1;
        assert_eq!(shares(&[reports, candidate(1, Tier::Fit, 9, 500)], 100), [100, 0]);
    }

    #[test]
    fn a_node_that_was_never_timed_gets_its_chance() {
        let mut unknown = candidate(0, Tier::Fit, 0, 0);
        unknown.latency = None;
        let share = shares(&[unknown, candidate(1, Tier::Fit, 0, 500)], 1000)[0];
        assert!((400..600).contains(&share), "{share}");
    }

    proptest! {
        /// Every candidate is taken exactly once, and a worse rank only after all of a better one.
        #[test]
        fn all_candidates_are_taken_the_best_rank_first(
            costs in prop::collection::vec((0_u32..6, 0_u32..20, 1_u64..10_000, prop::bool::weighted(0.2)), 0..10),
            seed: u64,
        ) {
            let tiers = [Tier::Near, Tier::Fit, Tier::Fallback, Tier::Recovering, Tier::Suspected, Tier::Stale];
            let mut candidates: Vec<_> = costs.iter().enumerate()
                .map(|(node, (tier, load, micros, last))| {
                    let candidate = candidate(node, tiers[*tier as usize], *load, *micros);
                    Candidate { rank: Rank { last: *last, ..candidate.rank }, ..candidate }
                })
                .collect();
            let mut rng = Rng::with_seed(seed);
            let mut taken = Vec::new();
            while let Some(next) = take(&mut candidates, &mut rng) {
                taken.push(next);
            }
            prop_assert!(taken.is_sorted_by_key(|candidate| candidate.rank));
            let mut nodes: Vec<_> = taken.iter().map(|candidate| candidate.node).collect();
            nodes.sort_unstable();
            prop_assert_eq!(nodes, (0..costs.len()).collect::<Vec<_>>());
        }
    }
}
