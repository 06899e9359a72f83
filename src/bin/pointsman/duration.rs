//! Durations on the command line.

use std::time::Duration;

/// Parses a number with its unit.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    humantime_serde::deserialize(text)
        .map_err(|_| "write a number with its unit, such as 200ms, 30s or 2min".to_owned())
}
