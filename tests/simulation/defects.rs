//! The defects that are planted in the set on purpose, and must be found.

use pointsman::testkit::simulation::Defect;

use crate::campaign::{Campaign, Until};
use crate::run::Violation;

/// Schedules within which each defect must be found.
const LIMIT: u64 = 1_000;

pub(crate) const DEFECTS: [Defect; 10] = [
    Defect::NoFence,
    Defect::ForgottenTimeline,
    Defect::AnyOutOfRecovery,
    Defect::PublishedBeforeFenced,
    Defect::RepeatedCommit,
    Defect::UnknownIsCommitted,
    Defect::ResolvedByIdAlone,
    Defect::LeakedPermit,
    Defect::EndlessWait,
    Defect::ReadsStayOnLostNode,
];

/// Returns the number of schedules after which a defect is found, and what is violated.
pub(crate) fn found_after(defect: Defect) -> Option<(u64, Violation)> {
    let campaign = Campaign::run(0, LIMIT, Some(defect), Until::FirstViolation);
    campaign.violations.into_iter().next().map(|(seed, violation)| (seed + 1, violation))
}
