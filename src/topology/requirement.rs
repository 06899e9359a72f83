//! The position that a causal token requires of a node (pure).

use super::ancestry::{Ancestry, Containment};
use crate::error::CausalError;
use crate::lsn::Lsn;
use crate::token::CausalToken;

/// A position that a token requires of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// The position that a replica must have replayed.
    pub(crate) position: Lsn,
    /// The timeline of the token's highest position.
    pub(crate) timeline: u32,
    /// The set's knowledge of the position.
    pub(crate) known: Known,
}

/// The set's knowledge of a position that a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// A node has written it.
    Written,
    /// The timeline is known, and no node was seen as far.
    ///
    /// Another program may just have written it.
    Ahead,
    /// No node has shown the timeline, or the cluster is not known yet.
    Unseen,
}

impl From<Requirement> for CausalError {
    /// Converts a requirement that no node has ever fulfilled.
    fn from(required: Requirement) -> Self {
        Self::Ahead { timeline: required.timeline, position: required.position }
    }
}

/// The part of a snapshot that decides about tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History<'s> {
    pub(crate) system_identifier: Option<u64>,
    pub(crate) ancestry: &'s Ancestry,
    /// The highest position that any node of the set is known to have reached.
    pub(crate) highest: Lsn,
}

/// Returns what a token requires, if its positions are in the present history.
pub(crate) fn requirement(token: &CausalToken, history: &History<'_>) -> Result<Requirement, CausalError> {
    if history.system_identifier.is_some_and(|own| own != token.system_identifier()) {
        return Err(CausalError::Foreign);
    }
    let mut required =
        Requirement { position: Lsn::default(), timeline: token.timeline(), known: Known::Written };
    for (timeline, position) in token.positions().iter() {
        required.position = required.position.max(position);
        match history.ancestry.containment(timeline, position) {
            Containment::Contained => {}
            Containment::Unseen => required.known = Known::Unseen,
            Containment::Lost { fork } => return Err(CausalError::Lost { timeline, position, fork }),
            Containment::Unknown => return Err(CausalError::HistoryUnknown { timeline, position }),
        }
    }
    if history.system_identifier.is_none() {
        required.known = Known::Unseen;
    } else if required.known == Known::Written && required.position > history.highest {
        required.known = Known::Ahead;
    }
    Ok(required)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Positions;
    use crate::topology::ancestry::TimelineFork;

    const CLUSTER: u64 = 7;

    /// A token of a few positions, each with its timeline.
    fn token(positions: &[(u32, u64)]) -> CausalToken {
        let mut all = Positions::default();
        for (timeline, position) in positions {
            all.record(*timeline, Lsn::new(*position));
        }
        CausalToken::of(CLUSTER, all).expect("a token with a position")
    }

    /// The second timeline, which began at 400, after which the nodes went to 900.
    fn second() -> Ancestry {
        let fork = TimelineFork { timeline: 2, fork: Lsn::new(400), parent: Some(1) };
        Ancestry { timeline: 2, forks: vec![fork] }
    }

    #[test]
    fn a_token_requires_its_highest_position_and_names_what_was_lost() {
        let ancestry = second();
        let history =
            History { system_identifier: Some(CLUSTER), ancestry: &ancestry, highest: Lsn::new(900) };
        let requires = |positions: &[(u32, u64)]| {
            let required = requirement(&token(positions), &history)?;
            Ok((required.position.as_u64(), required.known))
        };
        assert_eq!(requires(&[(2, 800)]), Ok((800, Known::Written)));
        assert_eq!(requires(&[(1, 300)]), Ok((300, Known::Written)));
        assert_eq!(requires(&[(1, 300), (2, 800)]), Ok((800, Known::Written)));
        assert_eq!(requires(&[(2, 901)]), Ok((901, Known::Ahead)));
        assert_eq!(requires(&[(3, 100)]), Ok((100, Known::Unseen)));
        let lost = CausalError::Lost { timeline: 1, position: Lsn::new(450), fork: Lsn::new(400) };
        assert_eq!(requires(&[(1, 450)]), Err(lost.clone()));
        assert_eq!(requires(&[(1, 450), (2, 800)]), Err(lost), "a later write does not hide the loss");
    }

    #[test]
    fn a_token_of_another_cluster_is_refused_once_the_own_one_is_known() {
        let ancestry = second();
        let history =
            |system_identifier| History { system_identifier, ancestry: &ancestry, highest: Lsn::new(900) };
        let foreign = CausalToken::new(8, 2, Lsn::new(100));
        assert_eq!(requirement(&foreign, &history(Some(CLUSTER))), Err(CausalError::Foreign));
        let required = requirement(&foreign, &history(None)).expect("nothing is known yet");
        assert_eq!(required.known, Known::Unseen);
    }
}
