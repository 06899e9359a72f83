//! The kinds of transactions, and their status.

use std::fmt;
use std::str::FromStr;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use serde::{Deserialize, Serialize};

/// A text that is none of the permitted names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a {what}: it is one of {}", .names.join(", "))]
#[non_exhaustive]
pub struct UnknownName {
    /// The kind of the expected name.
    pub what: &'static str,
    /// The permitted names.
    pub names: &'static [&'static str],
}

/// Declares an enum whose values are stored and written by their names.
macro_rules! named {
    (
        $(#[$doc:meta])*
        $name:ident = $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow, Serialize, Deserialize,
        )]
        #[diesel(sql_type = Text)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The names of all, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// Returns the name, as it is stored.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownName { what: $what, names: Self::NAMES }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ToSql<Text, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                <str as ToSql<Text, Pg>>::to_sql(self.as_str(), out)
            }
        }

        impl FromSql<Text, Pg> for $name {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                Ok(std::str::from_utf8(value.as_bytes())?.parse()?)
            }
        }
    };
}
pub(super) use named;

named! {
    /// The direction of a transaction.
    Kind = "kind" {
        /// Money came in.
        Deposit = "deposit",
        /// Money went out.
        Withdrawal = "withdrawal",
    }
}

named! {
    /// The status of a transaction. It only moves forward.
    ///
    /// ```text
    /// pending ──> processing ──> completed ──> refunded
    ///    │             │
    ///    └─────────────┴───────> failed        (pending may also complete at once)
    /// ```
    ///
    /// Only [`Completed`](Self::Completed) transactions count in a balance.
    ///
    /// ```
    /// use pointsman::payments::Status;
    ///
    /// assert!(Status::Pending.may_become(Status::Completed));
    /// assert!(!Status::Completed.may_become(Status::Pending));
    /// ```
    Status = "status" {
        /// Announced, but not started yet.
        Pending = "pending",
        /// The provider is processing it.
        Processing = "processing",
        /// Done: it counts in the balance, and will be settled.
        Completed = "completed",
        /// It failed. Final.
        Failed = "failed",
        /// It was completed and taken back before it was settled. Final.
        ///
        /// It no longer counts.
        Refunded = "refunded",
    }
}

impl Status {
    /// Returns `true` if a transaction of this status may move to another one.
    pub const fn may_become(self, to: Self) -> bool {
        matches!(
            (self, to),
            (Self::Pending, Self::Processing | Self::Completed | Self::Failed)
                | (Self::Processing, Self::Completed | Self::Failed)
                | (Self::Completed, Self::Refunded)
        )
    }

    /// Returns `true` if steps lead from this status to another one.
    ///
    /// ```
    /// use pointsman::payments::Status;
    ///
    /// assert!(Status::Pending.leads_to(Status::Refunded));
    /// assert!(!Status::Failed.leads_to(Status::Completed));
    /// ```
    pub fn leads_to(self, to: Self) -> bool {
        // No path leads back, so this ends.
        self.may_become(to) || Self::ALL.iter().any(|next| self.may_become(*next) && next.leads_to(to))
    }

    /// Returns `true` if no other status can follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Refunded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_leads_back_to_an_earlier_one() {
        // A status comes after all those from which it can be reached, so there is no cycle.
        for (position, from) in Status::ALL.iter().enumerate() {
            for to in &Status::ALL[..=position] {
                assert!(!from.may_become(*to), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn only_final_statuses_have_no_successor() {
        for from in Status::ALL {
            assert_eq!(from.is_final(), !Status::ALL.iter().any(|to| from.may_become(*to)), "{from}");
        }
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        let error = "done".parse::<Status>().unwrap_err().to_string();
        assert_eq!(
            error,
            "this is not a status: it is one of pending, processing, completed, failed, refunded"
        );
    }
}
