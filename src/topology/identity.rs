//! Which cluster the set belongs to: the system identifier that most nodes show.
//!
//! All nodes have the same vote, whatever role is configured. A host that ran `initdb` again shows
//! `pg_is_in_recovery() = false`, exactly as the true primary does.

/// The decision by the last identifiers of the configured nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vote {
    /// More than half of the shown identifiers agree, or the adopted one stays.
    One(u64),
    /// Some nodes were not probed yet, so a minority may still be refuted.
    Open,
    /// No majority agrees, or most of all nodes contradict the adopted one.
    Refused,
}

/// Decides by the last identifier of each configured node.
///
/// `pending` nodes were not probed yet.
pub(super) fn vote(adopted: Option<u64>, shown: &[Option<u64>], pending: usize) -> Vote {
    let votes = |identifier: u64| shown.iter().filter(|other| **other == Some(identifier)).count();
    // An identifier with more than half of them; there can be no second.
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
    fn the_majority_of_the_shown_identifiers_is_adopted_and_a_tie_is_refused() {
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
    fn a_minority_waits_for_the_nodes_that_were_not_probed_yet() {
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
