//! The settings that a session began with, for its turns in the shared one.

use super::statement::Access;

/// Settings that would end the session, because it is always in a transaction.
const DEADLY: [&str; 3] =
    ["idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"];

/// The settings of a session's start-up options.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<(String, String)>);

impl Settings {
    /// Reads start-up options: `-c name=value` or `--name=value`.
    ///
    /// A value has a backslash before each space.
    pub(super) fn of_options(options: &str) -> Self {
        let mut settings = Vec::new();
        let mut words = words(options).into_iter();
        while let Some(word) = words.next() {
            let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
                Some("") => words.next(),
                setting => setting.map(str::to_owned),
            };
            if let Some((name, value)) = setting.as_deref().and_then(|setting| setting.split_once('=')) {
                let name = name.replace('-', "_").to_lowercase();
                if is_name(&name) && !DEADLY.contains(&name.as_str()) {
                    settings.retain(|(other, _)| *other != name);
                    settings.push((name, value.to_owned()));
                }
            }
        }
        Self(settings)
    }

    /// Returns the value of a setting.
    pub(super) fn value_of(&self, name: &str) -> Option<&String> {
        self.0.iter().find_map(|(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Returns `true` if a transaction must not write.
    pub(super) fn is_read_only(&self, access: Access) -> bool {
        let default = || self.value_of("default_transaction_read_only").map(String::as_str);
        match access {
            Access::ReadOnly => true,
            Access::ReadWrite => false,
            Access::Default => matches!(default(), Some("on" | "true" | "yes" | "1")),
        }
    }

    /// Returns the names of the settings.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Returns the statement that sets them until the end of the transaction.
    ///
    /// A semicolon comes before it. It is empty if there are none.
    pub(super) fn as_statement(&self) -> String {
        let set = |(name, value): &(String, String)| {
            format!("pg_catalog.set_config('{name}', '{}', true)", value.replace('\'', "''"))
        };
        let all: Vec<_> = self.0.iter().map(set).collect();
        if all.is_empty() { String::new() } else { format!("; SELECT {}", all.join(", ")) }
    }
}

/// Returns `true` if the text can be a setting's name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// Returns the statements that undo settings, with a semicolon before each.
pub(super) fn unset(names: &[String]) -> String {
    let unset = |name: &String| format!("; SET LOCAL \"{}\" TO DEFAULT", name.replace('.', "\".\""));
    names.iter().map(unset).collect()
}

/// Splits options at spaces without a backslash before them.
fn words(options: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut().expect("there is always one");
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_ascii_whitespace() => words.push(String::new()),
            c => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let settings = Settings::of_options(
            r"-c jit=off  --search-path=a,b -cdefault_transaction_read_only=on -c x.y=it\ 's -c idle_session_timeout=1",
        );
        assert_eq!(settings.value_of("search_path").map(String::as_str), Some("a,b"));
        assert!(settings.is_read_only(Access::Default) && !settings.is_read_only(Access::ReadWrite));
        assert_eq!(settings.value_of("idle_session_timeout"), None, "it would end the session");
        assert!(settings.as_statement().ends_with("pg_catalog.set_config('x.y', 'it ''s', true)"));
        assert_eq!(Settings::default().as_statement(), "");
    }
}
