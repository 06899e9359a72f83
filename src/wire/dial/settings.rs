//! The initial settings of a session, by its kind.

use std::time::Duration;

use crate::config::TimeoutSettings;

/// The purpose of a session, which decides its settings at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionKind {
    /// To read: read-only at the server, also on a primary.
    Read,
    /// To write.
    Write,
    /// To ask a node for its state.
    Probe,
    /// To receive the notifications of a primary.
    Listen,
}

/// Multiple of the monitor's timeout after which the server cancels a probe.
///
/// This only tidies up at the server, and must not make a busy server look down.
const PROBE_SLACK: u32 = 4;

/// A setting that this crate defines.
///
/// A session without it did not get its start-up options.
///
/// In that case, a pooler dropped them.
pub(super) const MARK: &str = "pointsman.session";

impl SessionKind {
    /// Returns the value of [`MARK`].
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Probe => "probe",
            Self::Listen => "listen",
        }
    }

    /// Returns `true` if such sessions must not write.
    pub(super) fn is_read_only(self) -> bool {
        self != Self::Write
    }

    /// Returns the settings that a session needs.
    ///
    /// They override the defaults of its role and database.
    ///
    /// Other settings of a user's session keep the role's values. A probe sets everything that could break it. Settings
    /// that only some versions of the server know are excluded, because an unknown one ends the session.
    pub(super) fn settings(
        self,
        timeouts: &TimeoutSettings,
        probe_timeout: Duration,
    ) -> Vec<(&'static str, String)> {
        let mut settings = vec![(MARK, self.mark().to_owned())];
        if self.is_read_only() {
            settings.push(("default_transaction_read_only", "on".to_owned()));
        }
        let statement_timeout = match self {
            Self::Read => timeouts.read_statement,
            Self::Write => timeouts.write_statement,
            Self::Probe => Some(probe_timeout * PROBE_SLACK),
            Self::Listen => None,
        };
        if let Some(limit) = statement_timeout {
            settings.push(("statement_timeout", limit.as_millis().max(1).to_string()));
        }
        if self == Self::Probe {
            for (name, value) in [
                // A standby rejects any statement of a serializable transaction.
                ("default_transaction_isolation", "read committed"),
                ("default_transaction_deferrable", "off"),
                ("idle_in_transaction_session_timeout", "0"),
                ("lock_timeout", "0"),
                ("search_path", "pg_catalog"),
            ] {
                settings.push((name, value.to_owned()));
            }
        }
        settings
    }
}

/// Formats the settings as start-up options, which cost no round trip.
pub(super) fn as_options(settings: &[(&'static str, String)]) -> String {
    let option = |(name, value): &(&str, String)| format!("-c {name}={}", value.replace(' ', "\\ "));
    settings.iter().map(option).collect::<Vec<_>>().join(" ")
}

/// Formats the settings as statements, for a session that did not get its options.
///
/// `other` is `true` if the session has the settings of another kind, from an earlier client of a pooler.
pub(super) fn as_statements(settings: &[(&'static str, String)], other: bool) -> String {
    let reset = if other { "RESET ALL; SET TIME ZONE 'UTC'; SET client_encoding = 'UTF8'; " } else { "" };
    let set = |(name, value): &(&str, String)| format!("SET {name} = '{value}'");
    reset.to_owned() + &settings.iter().map(set).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_depends_on_nothing_that_a_role_is_set_to() {
        let settings = SessionKind::Probe.settings(&TimeoutSettings::default(), Duration::from_millis(300));
        let options = as_options(&settings);
        assert!(options.starts_with("-c pointsman.session=probe -c default_transaction_read_only=on "));
        assert!(options.contains("-c statement_timeout=1200 "), "{options}");
        assert!(options.contains("-c default_transaction_isolation=read\\ committed "), "{options}");
        let statements = as_statements(&settings, true);
        assert!(statements.starts_with("RESET ALL; "), "{statements}");
        assert!(
            statements.contains("SET default_transaction_isolation = 'read committed'; "),
            "{statements}"
        );
    }

    #[test]
    fn a_users_session_keeps_what_its_role_is_set_to() {
        let timeouts = TimeoutSettings::default();
        let names = |kind: SessionKind| {
            kind.settings(&timeouts, Duration::ZERO).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(SessionKind::Read), [MARK, "default_transaction_read_only"]);
        assert_eq!(names(SessionKind::Write), [MARK]);
    }
}
