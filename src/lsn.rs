//! A position in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

pub(crate) use self::positions::{PositionLog, Positions, SharedLog};

mod positions;

/// A log sequence number: a position in PostgreSQL's write-ahead log, in bytes.
///
/// The text form is PostgreSQL's: two hexadecimal halves with a slash.
///
/// ```
/// use pointsman::Lsn;
///
/// let lsn: Lsn = "16/B374D848".parse()?;
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// assert_eq!(lsn.bytes_after("16/B374D840".parse()?), 8);
/// # Ok::<_, pointsman::InvalidLsn>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Creates a position from its number of bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the position as a number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the bytes from `other` to this position; 0 if this one is first.
    pub const fn bytes_after(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// Returns the end of the last record, if the next one will begin here.
    ///
    /// At the end of a page, the insert position already points behind the header of the next page. A standby that has
    /// replayed everything reports that position only when more is written.
    ///
    /// No record ends in a header, so the result is exact for pages of 8 KiB. Only a specially compiled server has others.
    pub(crate) fn end_of_last_record(self) -> Self {
        const PAGE: u64 = 8192;
        /// The sizes of a page's header, and of that of a segment's first page.
        const PAGE_HEADERS: [u64; 2] = [24, 40];
        let beyond = self.0 % PAGE;
        if PAGE_HEADERS.contains(&beyond) { Self(self.0 - beyond) } else { self }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The error for text that is not a log sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a log sequence number: write two hexadecimal numbers with a slash, as in 16/B374D848")]
pub struct InvalidLsn;

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let half = |half: &str| {
            // `from_str_radix` alone would accept a sign as well.
            let is_hex = (1..=8).contains(&half.len()) && half.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(half, 16).ok().filter(|_| is_hex).ok_or(InvalidLsn)
        };
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[cfg(any(feature = "service", feature = "testkit"))]
    fn a_position_behind_a_page_header_is_the_end_of_the_page_before() {
        for (insert, end) in
            [(3 * 8192 + 24, 3 * 8192), ((1 << 24) + 40, 1 << 24), (3 * 8192 + 32, 3 * 8192 + 32)]
        {
            assert_eq!(Lsn::new(insert).end_of_last_record(), Lsn::new(end));
        }
    }

    proptest! {
        #[test]
        fn an_lsn_is_parsed_as_it_is_displayed(bytes: u64) {
            prop_assert_eq!(Lsn::new(bytes).to_string().parse(), Ok(Lsn::new(bytes)));
        }

        #[test]
        fn text_that_is_no_lsn_is_refused(text in "[0-9A-Fa-f/+ -]{0,20}") {
            if let Ok(lsn) = text.parse::<Lsn>() {
                let (high, low) = text.split_once('/').expect("read, so it has a slash");
                let digits = |half: &str| half.trim_start_matches('0').to_ascii_uppercase();
                let written = lsn.to_string();
                let (written_high, written_low) = written.split_once('/').expect("written with a slash");
                prop_assert_eq!((digits(high), digits(low)), (digits(written_high), digits(written_low)));
            }
        }
    }
}
