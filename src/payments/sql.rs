//! Fragments of SQL that Diesel cannot express, and the times that can be stored.

use std::ops::RangeInclusive;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use diesel::dsl::sql;
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, SqlLiteral, ValidGrouping};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{Binary, Date, Text};

diesel::define_sql_function! {
    /// The SHA-256 digest of some bytes.
    fn sha256(bytes: Binary) -> Binary;
}

/// The years 0 to 9999, in microseconds since 1970.
///
/// Both chrono and PostgreSQL hold more, but different ranges, and RFC 3339 writes only these.
pub(super) const STORABLE: RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

/// The status `completed` as a literal.
///
/// With a parameter instead, a generic plan could not prove that the partial indexes hold the rows. Diesel's `sql("…")`
/// would work, but a statement that contains it is prepared again each time.
#[derive(Debug, Clone, Copy, QueryId, ValidGrouping)]
pub(super) struct Completed;

impl Expression for Completed {
    type SqlType = Text;
}

impl<Table> AppearsOnTable<Table> for Completed {}
impl<Table> SelectableExpression<Table> for Completed {}

impl QueryFragment<Pg> for Completed {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_sql("'completed'");
        Ok(())
    }
}

/// The day of a transaction, in UTC whatever the session's time zone is.
///
/// It has no parameter, because PostgreSQL treats `f($1)` and `f($2)` as two expressions. Grouping by one of them would
/// not allow selecting the other.
pub(super) fn day() -> SqlLiteral<Date> {
    sql("(transactions.occurred_at AT TIME ZONE 'UTC')::date")
}

/// Returns the first moment of a day, or the nearest that can be stored.
pub(super) fn start_of(day: NaiveDate) -> DateTime<Utc> {
    storable(day.and_time(NaiveTime::MIN).and_utc())
}

/// Returns the first moment after a day, or the nearest that can be stored.
pub(super) fn end_of(day: NaiveDate) -> DateTime<Utc> {
    start_of(day.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX))
}

/// Returns the nearest time that can be stored.
pub(super) fn storable(time: DateTime<Utc>) -> DateTime<Utc> {
    let micros = time.timestamp_micros().clamp(*STORABLE.start(), *STORABLE.end());
    DateTime::from_timestamp_micros(micros).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_reaches_to_the_next() {
        let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
        assert_eq!(start_of(day).to_rfc3339(), "2024-02-29T00:00:00+00:00");
        assert_eq!(end_of(day).to_rfc3339(), "2024-03-01T00:00:00+00:00");
    }

    #[test]
    fn the_ends_of_time_can_be_stored() {
        assert_eq!(start_of(NaiveDate::MIN).timestamp_micros(), *STORABLE.start());
        assert_eq!(end_of(NaiveDate::MAX).timestamp_micros(), *STORABLE.end());
    }
}
