//! Seeded defects, which a test plants in the set to show that it finds them.
//!
//! Without the feature `testkit`, [`Defect::is_seeded`] is the constant `false`, and costs nothing.
//!
//! Reference: R. A. DeMillo, R. J. Lipton and F. G. Sayward, "Hints on Test Data Selection", IEEE Computer, 1978.

#[cfg(feature = "testkit")]
use std::cell::Cell;

/// A fault that a test plants in the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "testkit"), expect(unreachable_pub, reason = "only the test kit publishes it"))]
pub enum Defect {
    /// A node that is no longer the primary keeps its connections.
    NoFence,
    /// The highest timeline counts only while a node shows it.
    ForgottenTimeline,
    /// Each node out of recovery counts as the primary.
    AnyOutOfRecovery,
    /// The new primary is published before the old one is fenced, as by two threads.
    PublishedBeforeFenced,
    /// A transaction whose COMMIT got no answer runs again without resolution.
    RepeatedCommit,
    /// An in-doubt transaction is resolved by its identifier alone.
    ResolvedByIdAlone,
    /// The permit of a session that was abandoned is never released.
    LeakedPermit,
    /// The wait for a primary has no deadline.
    EndlessWait,
    /// Reads stay on a node that went down.
    ReadsStayOnLostNode,
    /// A COMMIT that got no answer counts as committed.
    UnknownIsCommitted,
    /// A standby serves reads, whichever history it follows.
    AnyLineage,
}

#[cfg(feature = "testkit")]
thread_local! {
    /// The defect of the sets that run in this thread.
    static SEEDED: Cell<Option<Defect>> = const { Cell::new(None) };
}

impl Defect {
    /// Returns `true` if a test has planted the defect.
    #[cfg(feature = "testkit")]
    pub(crate) fn is_seeded(self) -> bool {
        SEEDED.get() == Some(self)
    }

    #[cfg(not(feature = "testkit"))]
    #[expect(clippy::unused_self, reason = "the test kit's variant looks at the thread")]
    pub(crate) const fn is_seeded(self) -> bool {
        false
    }

    /// Plants a defect in the sets that run in this thread, or removes it.
    #[cfg(feature = "testkit")]
    pub(crate) fn seed(defect: Option<Self>) {
        SEEDED.set(defect);
    }
}
