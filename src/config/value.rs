//! The text form of one value, in the file and in the environment.

use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};
use humantime_serde::re::humantime;

use crate::token::TokenKey;

/// A type that a setting can have.
pub(super) trait Setting: Clone {
    /// The expected value, after "is not".
    const WHAT: &'static str;
    /// The remedy.
    const REMEDY: &'static str;
    /// The values of the type, as the documentation lists them.
    const VALUES: &'static str;
    /// The type that a range bounds.
    type Bound: Setting + PartialOrd;

    /// Reads a value; a variable of the environment is always text.
    fn read(value: &Value) -> Option<Self>;

    /// Returns the value as it is written in TOML.
    fn show(&self) -> String;

    /// Returns the value that a range bounds, if there is one.
    fn bounded(&self) -> Option<&Self::Bound> {
        None
    }
}

/// Returns the text of a value, if it is one.
pub(super) fn text(value: &Value) -> Option<&str> {
    if let ValueKind::String(text) = &value.kind { Some(text) } else { None }
}

/// Returns the values within `bounds`, worded for documentation and issues.
pub(super) fn describe<T: Setting>(bounds: &impl RangeBounds<T::Bound>) -> String {
    let plain = |value: &T::Bound| value.show().replace('"', "");
    match (bounds.start_bound(), bounds.end_bound()) {
        (Bound::Included(least), Bound::Included(most)) => format!("{} to {}", plain(least), plain(most)),
        (Bound::Included(least), _) => format!("at least {}", plain(least)),
        _ => T::VALUES.to_owned(),
    }
}

/// Implements `Setting` for a number or a boolean, by the kinds of values in TOML.
///
/// These are quoted in the environment only.
macro_rules! unquoted {
    ($Type:ty, $what:literal, $remedy:literal, $($kind:pat => $read:expr),+ $(; $accepts:expr)?) => {
        impl Setting for $Type {
            const WHAT: &'static str = $what;
            const REMEDY: &'static str = concat!($remedy, " (in TOML without quotes)");
            const VALUES: &'static str = $what;
            type Bound = Self;

            fn read(value: &Value) -> Option<Self> {
                match &value.kind {
                    ValueKind::String(text) if value.origin().is_some() => text.trim().parse().ok(),
                    $($kind => $read,)+
                    _ => None,
                }
                $(.filter($accepts))?
            }

            fn show(&self) -> String {
                format!("{self:?}")
            }

            fn bounded(&self) -> Option<&Self> {
                Some(self)
            }
        }
    };
}

unquoted!(u32, "a whole number from 0 to 4294967295", "write digits only, such as 10",
    ValueKind::I64(number) => (*number).try_into().ok());
unquoted!(u64, "a whole number", "write digits only, such as 1048576",
    ValueKind::I64(number) => (*number).try_into().ok());
unquoted!(f64, "a number", "write a number such as 0.2",
    ValueKind::Float(number) => Some(*number),
    ValueKind::I64(number) => i32::try_from(*number).ok().map(Self::from);
    |number: &Self| number.is_finite());
unquoted!(bool, "true or false", "write true or false", ValueKind::Boolean(value) => Some(*value));

impl Setting for Duration {
    const WHAT: &'static str = "a duration";
    const REMEDY: &'static str =
        "write a number with its unit, such as 500ms, 2s or 5min (in TOML in quotes)";
    const VALUES: &'static str = "duration";
    type Bound = Self;

    fn read(value: &Value) -> Option<Self> {
        humantime::parse_duration(text(value)?.trim()).ok()
    }

    fn show(&self) -> String {
        // humantime reads `m` and `min` alike; `min` cannot be mistaken for months.
        let minutes = |part: &str| match part.strip_suffix('m') {
            Some(minutes) => format!("{minutes}min"),
            None => part.to_owned(),
        };
        let text = humantime::format_duration(*self).to_string();
        format!("\"{}\"", text.split(' ').map(minutes).collect::<Vec<_>>().join(" "))
    }

    fn bounded(&self) -> Option<&Self> {
        Some(self)
    }
}

impl Setting for String {
    const WHAT: &'static str = "a text";
    const REMEDY: &'static str = "write it in quotes";
    const VALUES: &'static str = "text";
    type Bound = u32;

    fn read(value: &Value) -> Option<Self> {
        Some(text(value)?.trim().to_owned())
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for PathBuf {
    const WHAT: &'static str = "a path";
    const REMEDY: &'static str = "write it in quotes";
    const VALUES: &'static str = "path";
    type Bound = u32;

    fn read(value: &Value) -> Option<Self> {
        String::read(value).map(Self::from)
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for Vec<String> {
    const WHAT: &'static str = "an array of texts";
    const REMEDY: &'static str = "write it as [\"one\", \"two\"]";
    const VALUES: &'static str = "array of texts";
    type Bound = u32;

    fn read(value: &Value) -> Option<Self> {
        match &value.kind {
            ValueKind::Array(texts) => texts.iter().map(String::read).collect(),
            _ => None,
        }
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for TokenKey {
    const WHAT: &'static str = "a token key";
    const REMEDY: &'static str =
        "write at least 16 bytes of text, such as the output of `openssl rand -hex 32`";
    const VALUES: &'static str = "text of at least 16 bytes";
    type Bound = u32;

    fn read(value: &Value) -> Option<Self> {
        // As from a file: line ends at its end do not count.
        Self::new(text(value)?.trim_end_matches(['\n', '\r'])).ok()
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

/// A setting that may be absent.
///
/// The value `none` means absent, even over a value in the file.
impl<T: Setting> Setting for Option<T> {
    const WHAT: &'static str = T::WHAT;
    const REMEDY: &'static str = T::REMEDY;
    const VALUES: &'static str = T::VALUES;
    type Bound = T::Bound;

    fn read(value: &Value) -> Option<Self> {
        match text(value).map(str::trim) {
            Some("none") => Some(None),
            _ => T::read(value).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "\"none\"".to_owned(), T::show)
    }

    fn bounded(&self) -> Option<&T::Bound> {
        self.as_ref()?.bounded()
    }
}

/// Declares an enum with each variant's spelling in files, variables and URLs.
macro_rules! spelled {
    (
        $(#[$meta:meta])*
        pub enum $Name:ident, $what:literal, $values:literal {
            $($(#[$of_variant:meta])* $Variant:ident = $text:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $($(#[$of_variant])* $Variant,)*
        }

        impl $Name {
            /// Returns the spelling in files, variables and URLs.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $text,)*
                }
            }
        }

        impl $crate::config::value::Setting for $Name {
            const WHAT: &'static str = $what;
            const REMEDY: &'static str = concat!("write ", $values, " (in TOML in quotes)");
            const VALUES: &'static str = $values;
            type Bound = u32;

            fn read(value: &config::Value) -> Option<Self> {
                match $crate::config::value::text(value)?.trim() {
                    $($text => Some(Self::$Variant),)*
                    _ => None,
                }
            }

            fn show(&self) -> String {
                format!("{:?}", self.as_str())
            }
        }
    };
}

pub(super) use spelled;
