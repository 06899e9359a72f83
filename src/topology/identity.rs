//! Which cluster the set belongs to: the system identifier that most nodes show.
//!
//! No node's word counts more than another's, whatever role is configured: a host that was initialised anew says
//! `pg_is_in_recovery() = false` as the true primary does.

/// What the identifiers that the configured nodes showed last decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vote {
    /// More than half of the nodes that showed one agree, or the set keeps what it adopted.
    One(u64),
    /// Not every node was probed yet, so a minority may still prove to be one.
    Open,
    /// None has the majority, or most of all nodes speak against the one that was adopted.
    Refused,
}

/// Decides by what each configured node showed last; `pending` of them were not probed yet.
pub(super) fn vote(adopted: Option<u64>, shown: &[Option<u64>], pending: usize) -> Vote {
    let votes = |identifier: u64| shown.iter().filter(|other| **other == Some(identifier)).count();
    // One with more than half of them, of which there can be no second.
    let most = |of: usize| shown.iter().flatten().copied().find(|identifier| 2 * votes(*identifier) > of);
    let of_all = most(shown.len());
    match (adopted, of_all) {
        (Some(adopted), Some(other)) if adopted != other => Vote::Refused,
        (Some(adopted), _) => Vote::One(adopted),
        (None, Some(identifier)) => Vote::One(identifier),
        (None, None) if pending > 0 => Vote::Open,
        (None, None) => match (most(shown.iter().flatten().count()), shown.iter().flatten().next()) {
            (Some(identifier), _) => Vote::One(identifier),
            (None, Some(_)) => Vote::Refused,
            (None, None) => Vote::Open,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_of_what_is_seen_is_adopted_and_a_tie_is_refused() {
        for (shown, expected) in [
            (vec![Some(7)], Vote::One(7)),
            (vec![Some(7), None, None], Vote::One(7)),
            (vec![Some(8), Some(7), Some(7), Some(7)], Vote::One(7)),
            (vec![Some(8), Some(7), None, Some(7)], Vote::One(7)),
            (vec![Some(7), Some(8)], Vote::Refused),
            (vec![Some(7), Some(7), Some(8), Some(8)], Vote::Refused),
            (vec![Some(7), Some(8), Some(9), Some(7)], Vote::Refused),
            (vec![None, None], Vote::Open),
        ] {
            assert_eq!(vote(None, &shown, 0), expected, "{shown:?}");
        }
    }

    #[test]
    fn a_minority_waits_for_those_that_were_not_probed_yet() {
        assert_eq!(vote(None, &[Some(8), None, None], 2), Vote::Open);
        assert_eq!(vote(None, &[Some(8), Some(7), None], 1), Vote::Open);
        assert_eq!(vote(None, &[Some(7), Some(7), None], 1), Vote::One(7), "whatever the third one shows");
    }

    #[test]
    fn an_adopted_identity_stays_unless_most_of_all_nodes_show_another_one() {
        assert_eq!(vote(Some(7), &[Some(7), Some(8)], 0), Vote::One(7));
        assert_eq!(vote(Some(7), &[None, Some(8), None], 0), Vote::One(7));
        assert_eq!(vote(Some(7), &[Some(7), Some(8), Some(8)], 0), Vote::Refused);
        assert_eq!(vote(Some(7), &[Some(8)], 0), Vote::Refused, "the only one");
        assert_eq!(vote(Some(7), &[Some(8), Some(9), Some(8), Some(9)], 0), Vote::One(7), "all are foreign");
    }
}
