//! The defects that are planted in the set on purpose, and must be found.

use pointsman::testkit::simulation::Defect;

use crate::campaign::Campaign;
use crate::run::Violation;

/// Schedules within which each defect must be found.
const LIMIT: u64 = 1_000;

/// The defects, each with the first seed that finds it.
///
/// A test begins there, so that it is short. After a change of the schedules, it takes longer.
pub(crate) const DEFECTS: [(Defect, u64); 10] = [
    (Defect::NoFence, 179),
    (Defect::ForgottenTimeline, 1),
    (Defect::AnyOutOfRecovery, 0),
    (Defect::PublishedBeforeFenced, 129),
    (Defect::RepeatedCommit, 5),
    (Defect::UnknownIsCommitted, 67),
    (Defect::ResolvedByIdAlone, 12),
    (Defect::LeakedPermit, 1),
    (Defect::EndlessWait, 32),
    (Defect::ReadsStayOnLostNode, 156),
];

/// Returns the number of schedules, from a seed on, after which a defect is found, and what is violated.
pub(crate) fn found_after(defect: Defect, from: u64) -> Option<(u64, Violation)> {
    let campaign = Campaign::run(from, LIMIT, Some(defect), true);
    campaign.violations.into_iter().next().map(|(seed, violation)| (seed - from + 1, violation))
}
