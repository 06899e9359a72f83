//! How one value is written.

use std::time::Duration;

use config::ValueKind;
use humantime_serde::re::humantime;

use super::Fallback;

/// A value as it stands in the file or in the environment.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// Text: the type has to be read from it in the environment, and is quoted in TOML.
    Text {
        text: &'a str,
        /// Whether a number may be read from it, because the environment has only text.
        untyped: bool,
    },
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Other,
}

impl<'a> Raw<'a> {
    pub(super) fn new(kind: &'a ValueKind, environment: bool) -> Self {
        match kind {
            ValueKind::String(text) => Self::Text { text: text.trim(), untyped: environment },
            ValueKind::I64(integer) => Self::Integer(*integer),
            ValueKind::Float(float) => Self::Float(*float),
            ValueKind::Boolean(boolean) => Self::Boolean(*boolean),
            _ => Self::Other,
        }
    }
}

/// A type that a setting can have.
pub(super) trait Setting: Sized {
    /// What is expected, after "is not".
    const WHAT: &'static str;
    /// How to write it.
    const REMEDY: &'static str;

    fn read(raw: Raw<'_>) -> Option<Self>;

    /// The value as TOML, or nothing if it can only be left out.
    fn show(&self) -> Option<String>;
}

impl Setting for u32 {
    const WHAT: &'static str = "a whole number from 0 to 4294967295";
    const REMEDY: &'static str = "write digits only, such as 10 (in TOML without quotes)";

    fn read(raw: Raw<'_>) -> Option<Self> {
        u64::read(raw).and_then(|number| number.try_into().ok())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for u64 {
    const WHAT: &'static str = "a whole number";
    const REMEDY: &'static str = "write digits only, such as 1048576 (in TOML without quotes)";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Integer(integer) => integer.try_into().ok(),
            Raw::Text { text, untyped: true } => text.parse().ok(),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for f64 {
    const WHAT: &'static str = "a number";
    const REMEDY: &'static str = "write a number such as 0.2 (in TOML without quotes)";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Float(float) => Some(float),
            Raw::Integer(integer) => i32::try_from(integer).ok().map(Self::from),
            Raw::Text { text, untyped: true } => text.parse().ok(),
            _ => None,
        }
        .filter(|number: &Self| number.is_finite())
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Setting for bool {
    const WHAT: &'static str = "true or false";
    const REMEDY: &'static str = "write true or false (in TOML without quotes)";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Boolean(boolean) => Some(boolean),
            Raw::Text { text, untyped: true } => text.parse().ok(),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for Duration {
    const WHAT: &'static str = "a duration";
    const REMEDY: &'static str =
        "write a number with its unit, such as 500ms, 2s or 5min (in TOML in quotes)";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text { text, .. } => humantime::parse_duration(text).ok(),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        // humantime reads `m` and `min` alike; `min` can't be taken for months.
        let minutes = |part: &str| match part.strip_suffix('m') {
            Some(minutes) => format!("{minutes}min"),
            None => part.to_owned(),
        };
        let text = humantime::format_duration(*self).to_string();
        Some(format!("\"{}\"", text.split(' ').map(minutes).collect::<Vec<_>>().join(" ")))
    }
}

impl Setting for String {
    const WHAT: &'static str = "a text";
    const REMEDY: &'static str = "write it in quotes";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text { text, .. } => Some(text.to_owned()),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Setting for Fallback {
    const WHAT: &'static str = "a fallback policy";
    const REMEDY: &'static str = "write never, when_unfit or always (in TOML in quotes)";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text { text: "never", .. } => Some(Self::Never),
            Raw::Text { text: "when_unfit", .. } => Some(Self::WhenUnfit),
            Raw::Text { text: "always", .. } => Some(Self::Always),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("{:?}", self.as_str()))
    }
}

/// A setting that may be absent. `none` says so, also where the file says otherwise.
impl<T: Setting> Setting for Option<T> {
    const WHAT: &'static str = T::WHAT;
    const REMEDY: &'static str = T::REMEDY;

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text { text: "none", .. } => Some(None),
            raw => T::read(raw).map(Some),
        }
    }

    fn show(&self) -> Option<String> {
        match self {
            Some(value) => value.show(),
            None => Some("\"none\"".to_owned()),
        }
    }
}
