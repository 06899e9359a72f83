//! Notices that the answers of the primary's sessions stop (pure).
//!
//! The next probe of a primary that hangs may be almost `probe.interval` away. Its sessions show the hang sooner: they
//! got answers all the time, and now they get none although some of them are in use. That is a reason to probe at once.
//! A statement that takes long does the same, so it costs a probe, and no more than one a second.

use std::time::Duration;

/// Time between two samples of the number of answers.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_millis(25);

/// Samples in a row with new answers after which silence means something.
///
/// A session with an answer from time to time is silent most of the time.
const STEADY: u32 = 4;

/// Samples in a row without a new answer that are a stall.
const SILENT: u32 = 2;

/// The flow of answers, from one sample to the next.
#[derive(Debug, Default)]
pub(super) struct Stall {
    answers: u64,
    /// Samples in a row with new answers.
    steady: u32,
    /// Samples in a row without, after a steady flow.
    silent: u32,
}

impl Stall {
    /// Returns `true` if a steady flow of answers stopped while sessions are in use.
    ///
    /// `answers` is their number since the start.
    pub(super) fn on_sample(&mut self, answers: u64, in_use: bool) -> bool {
        if std::mem::replace(&mut self.answers, answers) != answers {
            (self.steady, self.silent) = (self.steady.saturating_add(1), 0);
            return false;
        }
        if self.steady < STEADY || !in_use {
            *self = Self { answers, ..Self::default() };
            return false;
        }
        self.silent += 1;
        let stalled = self.silent == SILENT;
        if stalled {
            *self = Self { answers, ..Self::default() };
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the samples that report a stall.
    ///
    /// Each sample is the number of new answers, and whether a session is in use.
    fn stalls(samples: &[(u64, bool)]) -> Vec<usize> {
        let (mut stall, mut answers) = (Stall::default(), 0);
        let report = |(i, (new, in_use)): (usize, &(u64, bool))| {
            answers += new;
            stall.on_sample(answers, *in_use).then_some(i)
        };
        samples.iter().enumerate().filter_map(report).collect()
    }

    #[test]
    fn a_steady_flow_that_stops_while_sessions_are_in_use_is_a_stall() {
        let flow = [(3, true), (1, false), (2, true), (5, true)];
        let (silent, unused, one) = ((0, true), (0, false), (1, true));
        let after = |samples: &[(u64, bool)]| stalls(&[&flow, samples].concat());
        assert_eq!(after(&[silent, silent]), [5]);
        assert_eq!(after(&[silent, silent, silent, silent, silent]), [5], "it is reported once");
        assert_eq!(after(&[silent, one, silent, silent]), [7], "an answer interrupts it");
        assert_eq!(after(&[unused, unused, silent, silent]), [0_usize; 0], "the load has ended");
        assert_eq!(after(&[silent, unused, silent, silent]), [0_usize; 0], "the load has ended");
        assert_eq!(after(&[silent]), [0_usize; 0]);
    }

    #[test]
    fn a_session_with_an_answer_now_and_then_never_stalls() {
        let (answer, silent) = ((1, true), (0, true));
        let seldom = [answer, silent, silent, silent];
        assert_eq!(stalls(&seldom.repeat(10)), [0_usize; 0]);
        assert_eq!(stalls(&[answer, answer, answer, silent, silent, silent]), [0_usize; 0]);
    }
}
