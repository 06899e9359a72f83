//! Texts for names and codes, which are valid once they exist.

use std::fmt;
use std::str::FromStr;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use serde::{Deserialize, Serialize};

/// The error for a text that is not a valid code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {rule}")]
#[non_exhaustive]
pub struct CodeError {
    /// The name of the expected code.
    pub what: &'static str,
    /// The rule that it must follow.
    pub rule: &'static str,
}

/// Returns `true` if a text has 1 to `longest` visible ASCII characters.
///
/// None of them needs quoting in a log or a header.
fn is_visible(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_asset(text: &str) -> bool {
    (2..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $what:literal, $rule:literal, $valid:expr;)*) => { $(
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow, Serialize, Deserialize,
        )]
        #[diesel(sql_type = Text)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Creates a value from a text.
            ///
            /// # Errors
            ///
            /// Fails if the text breaks the rule, which the error quotes.
            pub fn new(text: impl Into<String>) -> Result<Self, CodeError> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(CodeError { what: $what, rule: $rule }) }
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = CodeError;

            fn from_str(text: &str) -> Result<Self, CodeError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = CodeError;

            fn try_from(text: String) -> Result<Self, CodeError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(code: $name) -> Self {
                code.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ToSql<Text, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                <str as ToSql<Text, Pg>>::to_sql(&self.0, out)
            }
        }

        impl FromSql<Text, Pg> for $name {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                Ok(Self::new(<String as FromSql<Text, Pg>>::from_sql(value)?)?)
            }
        }
    )* };
}

codes! {
    /// The unit of an amount: a currency or a token.
    ///
    /// ```
    /// use pointsman::payments::Asset;
    ///
    /// assert_eq!("CZK".parse::<Asset>()?.as_str(), "CZK");
    /// assert!("czk".parse::<Asset>().is_err());
    /// # Ok::<(), pointsman::payments::CodeError>(())
    /// ```
    Asset = "an asset", "2 to 12 capital letters and digits, such as EUR", is_asset;
    /// The account of a transaction.
    AccountId = "an account", "1 to 64 visible ASCII characters without a space", |text| is_visible(text, 64);
    /// The source of a transaction: a bank, a payment service, a ledger.
    Provider = "a provider", "1 to 64 visible ASCII characters without a space", |text| is_visible(text, 64);
    /// The provider's id for a transaction; unique for the provider.
    ProviderId = "a provider's id", "1 to 128 visible ASCII characters without a space",
        |text| is_visible(text, 128);
    /// The id of one message of a provider, by which a repetition is recognised.
    IdempotencyKey = "an idempotency key", "1 to 128 visible ASCII characters without a space",
        |text| is_visible(text, 128);
    /// The person or program that acted, for the audit log.
    Actor = "an actor", "1 to 64 visible ASCII characters without a space", |text| is_visible(text, 64);
}

/// A provider acts by its callbacks.
impl From<Provider> for Actor {
    fn from(provider: Provider) -> Self {
        // Both follow the same rule.
        Self(provider.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_that_break_their_rule_are_refused() {
        for text in ["", "E", "eur", "EUR ", "ÉUR", "ABCDEFGHIJKLM", "E\u{0}R"] {
            assert!(Asset::new(text).is_err(), "{text:?}");
        }
        for text in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(AccountId::new(text).is_err(), "{text:?}");
        }
        assert!(ProviderId::new("x".repeat(128)).is_ok());
        assert!(ProviderId::new("x".repeat(129)).is_err());
    }

    #[test]
    fn an_error_in_json_states_the_rule() {
        let error = serde_json::from_str::<Asset>(r#""euro""#).unwrap_err();
        assert!(error.to_string().starts_with("an asset is 2 to 12 capital letters"), "{error}");
        assert_eq!(serde_json::to_string(&Asset::new("EUR").unwrap()).unwrap(), r#""EUR""#);
    }
}
