//! The effects that users may notice of each fault, compared with the actual ones.
//!
//! It is pure: the walk measures, this compares. Any other effect fails the command.

use std::collections::BTreeMap;

use serde::Serialize;

/// A fault that the walk goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    ReplicaKilled,
    ReplicaHangs,
    AllReplicasGone,
    ReplicaDisconnected,
    PrimaryKilled,
    PrimaryHangs,
    Switchover,
    SplitBrain,
    EverythingDown,
}

/// All faults, in the order of the walk.
pub(super) const WALK: [Fault; 9] = [
    Fault::ReplicaKilled,
    Fault::ReplicaHangs,
    Fault::AllReplicasGone,
    Fault::ReplicaDisconnected,
    Fault::PrimaryKilled,
    Fault::PrimaryHangs,
    Fault::Switchover,
    Fault::SplitBrain,
    Fault::EverythingDown,
];

/// The effects that users may notice of a fault.
pub(super) struct Allowed {
    /// The codes with which reads may fail.
    pub(super) reads: &'static [&'static str],
    /// The codes with which writes may fail.
    pub(super) writes: &'static [&'static str],
    /// `true` if writes acknowledged while two servers were primaries may be lost.
    pub(super) lost_between_promotions: bool,
    /// The possible loss, with its reason.
    pub(super) lost: &'static str,
}

impl Fault {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ReplicaKilled => "a replica is killed",
            Self::ReplicaHangs => "a replica hangs",
            Self::AllReplicasGone => "all replicas are killed, and come back",
            Self::ReplicaDisconnected => "a replica loses its primary",
            Self::PrimaryKilled => "the primary is killed, a replica promoted",
            Self::PrimaryHangs => "the primary hangs, a replica is promoted, the old one wakes up",
            Self::Switchover => "a planned switchover",
            Self::SplitBrain => "both replicas are promoted",
            Self::EverythingDown => "everything is down for 5 seconds",
        }
    }

    /// Returns the effects that users may notice.
    pub(super) fn allowed(self) -> Allowed {
        let no_failed_reads =
            |writes, lost| Allowed { reads: &[], writes, lost_between_promotions: false, lost };
        match self {
            Self::ReplicaKilled | Self::ReplicaHangs | Self::AllReplicasGone | Self::ReplicaDisconnected => {
                no_failed_reads(&[], "nothing: the primary is well")
            }
            Self::PrimaryKilled | Self::PrimaryHangs => no_failed_reads(
                &[],
                "nothing: it acknowledges what a replica has received, and the most advanced replica is promoted",
            ),
            Self::Switchover => no_failed_reads(
                &[],
                "nothing: a primary that is stopped cleanly sends everything to its replicas first",
            ),
            Self::SplitBrain => Allowed {
                reads: &[],
                writes: &["connection_lost", "outcome_unknown", "split_brain"],
                lost_between_promotions: true,
                lost: "what one of them acknowledged before the other was seen as a primary too: neither waits for the \
                       other, and one history is kept",
            },
            Self::EverythingDown => Allowed {
                reads: &["no_node", "connection_lost", "overloaded", "timeout"],
                writes: &[],
                lost_between_promotions: false,
                lost: "nothing: what was acknowledged is in the primary's files",
            },
        }
    }
}

/// The effects of one fault that the users noticed.
#[derive(Debug, Default, Serialize)]
pub(super) struct Noticed {
    pub(super) name: &'static str,
    pub(super) reads: usize,
    pub(super) failed_reads: BTreeMap<String, usize>,
    pub(super) longest_read_gap_ms: f64,
    pub(super) slowest_read_ms: f64,
    pub(super) writes: usize,
    pub(super) failed_writes: BTreeMap<String, usize>,
    /// Acknowledged writes that the primary does not have.
    pub(super) lost_acknowledged_writes: usize,
    /// Those of them that were acknowledged while two servers became primaries.
    pub(super) lost_between_promotions: usize,
    /// Writes that were reported as not carried out, and that the primary has.
    pub(super) failed_but_carried_out: usize,
    pub(super) was_promoted: bool,
    /// Null if nothing was promoted, or nothing was written after it.
    pub(super) first_write_after_promotion_ms: Option<f64>,
}

/// Returns the effects that this fault does not explain.
pub(super) fn unexplained(fault: Fault, noticed: &Noticed) -> Vec<String> {
    let allowed = fault.allowed();
    let mut found = Vec::new();
    for (what, failed, codes) in
        [("reads", &noticed.failed_reads, allowed.reads), ("writes", &noticed.failed_writes, allowed.writes)]
    {
        for (code, count) in failed.iter().filter(|(code, _)| !codes.contains(&code.as_str())) {
            let hint = if code == "overloaded" { ": this machine is too busy for the traffic" } else { "" };
            found.push(format!("{count} {what} failed with `{code}`{hint}"));
        }
    }
    let explained = if allowed.lost_between_promotions { noticed.lost_between_promotions } else { 0 };
    match noticed.lost_acknowledged_writes.saturating_sub(explained) {
        0 => {}
        lost => {
            found.push(format!("{lost} acknowledged writes are lost; what may be lost: {}", allowed.lost))
        }
    }
    if noticed.failed_but_carried_out > 0 {
        found.push(format!(
            "{} writes were carried out that were reported as failed",
            noticed.failed_but_carried_out
        ));
    }
    if noticed.reads == 0 || noticed.writes == 0 {
        found.push("there was no traffic, so nothing is shown".to_owned());
    }
    if noticed.was_promoted && noticed.first_write_after_promotion_ms.is_none() {
        found.push("no write succeeded after the promotion".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A walk in which nothing failed.
    fn well(fault: Fault) -> Noticed {
        Noticed { name: fault.name(), reads: 2_000, writes: 400, ..Noticed::default() }
    }

    fn failed(code: &str, count: usize) -> BTreeMap<String, usize> {
        BTreeMap::from([(code.to_owned(), count)])
    }

    #[test]
    fn a_fault_that_no_user_noticed_passes_and_a_walk_without_traffic_fails() {
        for fault in WALK {
            assert_eq!(unexplained(fault, &well(fault)), Vec::<String>::new(), "{fault:?}");
            assert_eq!(unexplained(fault, &Noticed { writes: 0, ..well(fault) }).len(), 1, "{fault:?}");
            assert!(fault.allowed().lost.contains(':'), "{fault:?}: what may be lost comes with its reason");
        }
    }

    /// The walk ended with "17 writes that were acknowledged are missing", exit status 0 and no explanation.
    #[test]
    fn a_lost_write_fails_the_walk_unless_two_servers_became_primaries_meanwhile() {
        for fault in WALK {
            let lost = Noticed { lost_acknowledged_writes: 17, ..well(fault) };
            assert!(unexplained(fault, &lost)[0].starts_with("17 acknowledged writes are lost"), "{fault:?}");
            let between = Noticed { lost_between_promotions: 17, ..lost };
            assert_eq!(unexplained(fault, &between).is_empty(), fault == Fault::SplitBrain, "{fault:?}");
            let some = Noticed { lost_between_promotions: 16, ..between };
            assert_eq!(unexplained(fault, &some).len(), 1, "{fault:?}");
        }
    }

    #[test]
    fn a_failed_read_fails_the_walk_unless_everything_is_down() {
        for fault in WALK {
            let noticed = Noticed { failed_reads: failed("no_node", 3), ..well(fault) };
            let expected =
                if fault == Fault::EverythingDown { vec![] } else { vec!["3 reads failed with `no_node`"] };
            assert_eq!(unexplained(fault, &noticed), expected, "{fault:?}");
            let noticed = Noticed { failed_reads: failed("internal", 1), ..well(fault) };
            assert_eq!(unexplained(fault, &noticed), ["1 reads failed with `internal`"], "{fault:?}");
        }
    }

    #[test]
    fn a_write_may_fail_with_the_codes_of_its_fault_only() {
        for (code, faults) in [
            ("connection_lost", &[Fault::SplitBrain][..]),
            ("outcome_unknown", &[Fault::SplitBrain]),
            ("split_brain", &[Fault::SplitBrain]),
            ("no_primary", &[]),
            ("internal", &[]),
            ("error sending request", &[]),
        ] {
            for fault in WALK {
                let noticed = Noticed { failed_writes: failed(code, 2), ..well(fault) };
                assert_eq!(
                    unexplained(fault, &noticed).is_empty(),
                    faults.contains(&fault),
                    "{fault:?} {code}"
                );
            }
        }
    }

    #[test]
    fn a_wrong_answer_and_a_promotion_without_a_write_fail_the_walk() {
        let fault = Fault::PrimaryKilled;
        let wrong = Noticed { failed_but_carried_out: 1, ..well(fault) };
        assert_eq!(unexplained(fault, &wrong), ["1 writes were carried out that were reported as failed"]);
        let silent = Noticed { was_promoted: true, ..well(fault) };
        assert_eq!(unexplained(fault, &silent), ["no write succeeded after the promotion"]);
        let well = Noticed { was_promoted: true, first_write_after_promotion_ms: Some(40.0), ..well(fault) };
        assert!(unexplained(fault, &well).is_empty());
    }
}
