//! Lists, page by page.
//!
//! A page starts where the last one ended, and rows are not counted. So the thousandth page costs as much as the first,
//! and a new row neither repeats another nor hides it. (Markus Winand, "We need tool support for keyset pagination",
//! use-the-index-luke.com/no-offset.)

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::sql::STORABLE;

/// Some items of a list, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The start of the next page; `None` at the end.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Returns a page from up to one item more than requested.
    ///
    /// The extra item shows that there is a next page.
    pub(super) fn cut(mut items: Vec<T>, size: PageSize, end: impl Fn(&T) -> Cursor) -> Self {
        let more = items.len() > size.items();
        items.truncate(size.items());
        let next = if more { items.last().map(end) } else { None };
        Self { items, next }
    }
}

/// A request for a page of a list.
///
/// ```
/// use pointsman::payments::{PageRequest, PageSize};
///
/// let first = PageRequest::first(PageSize::new(20));
/// assert_eq!(first.size.items(), 20);
/// assert!(first.after.is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// Maximum items.
    pub size: PageSize,
    /// The end of the page before; `None` for the first page.
    pub after: Option<Cursor>,
}

impl PageRequest {
    /// Asks for the first page.
    pub fn first(size: PageSize) -> Self {
        Self { size, after: None }
    }

    /// Asks for the page that comes after a cursor.
    pub fn after(self, cursor: Cursor) -> Self {
        Self { after: Some(cursor), ..self }
    }
}

/// The maximum number of items on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(u16);

impl PageSize {
    /// The largest page.
    pub const MAX: Self = Self(500);

    /// Clamps a size to the permitted range, from 1 to [`MAX`](Self::MAX).
    pub const fn new(items: u16) -> Self {
        match items {
            0 => Self(1),
            items if items > Self::MAX.0 => Self::MAX,
            items => Self(items),
        }
    }

    /// Returns the number of items.
    pub const fn items(self) -> usize {
        self.0 as usize
    }

    /// Returns the number of rows to ask for.
    ///
    /// It is one more than the size, which shows whether there is a next page.
    pub(super) const fn rows(self) -> i64 {
        self.0 as i64 + 1
    }
}

impl Default for PageSize {
    /// Fifty: a screen or two.
    fn default() -> Self {
        Self(50)
    }
}

/// The end of a page of a list.
///
/// It is opaque: its content may change, so programs must not parse it. It comes back from outside, so it is checked,
/// also against use with another list.
///
/// ```
/// use pointsman::payments::{BadCursor, Cursor};
///
/// assert_eq!("top".parse::<Cursor>(), Err(BadCursor::Malformed));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor {
    list: List,
    position: i64,
    id: Uuid,
}

/// The list that a cursor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum List {
    Transactions = b't' as isize,
    Settlements = b's' as isize,
    Audit = b'a' as isize,
}

/// The reasons why a text is not a [`Cursor`] for the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCursor {
    /// It was never handed out.
    #[error(
        "the cursor is malformed: pass the `next` of the last page unchanged, or none for the first page"
    )]
    Malformed,
    /// It was handed out for another list.
    #[error("the cursor belongs to another list: pass the `next` of the last page of this list")]
    OtherList,
}

impl Cursor {
    /// The length of its text: two digits for each byte.
    const TEXT_LENGTH: usize = 2 * (1 + size_of::<i64>() + size_of::<Uuid>());

    /// Points after a row of a list that is sorted by a time and an id.
    pub(super) fn at_time(list: List, time: DateTime<Utc>, id: Uuid) -> Self {
        Self { list, position: time.timestamp_micros(), id }
    }

    /// Points after a row of a list that is sorted by a number.
    pub(super) fn at_number(list: List, number: i64) -> Self {
        Self { list, position: number, id: Uuid::nil() }
    }

    pub(super) fn time(self, list: List) -> Result<(DateTime<Utc>, Uuid), BadCursor> {
        let position = self.number(list)?;
        let time = DateTime::from_timestamp_micros(position).ok_or(BadCursor::Malformed)?;
        Ok((time, self.id))
    }

    pub(super) fn number(self, list: List) -> Result<i64, BadCursor> {
        if self.list == list { Ok(self.position) } else { Err(BadCursor::OtherList) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:016x}{}", self.list as u8, self.position, self.id.simple())
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        // One text for one cursor: `from_str_radix` would also accept a sign and capital letters.
        if text.len() != Self::TEXT_LENGTH || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(BadCursor::Malformed);
        }
        let (list, rest) = text.split_at(2);
        let (position, id) = rest.split_at(16);
        let list = match u8::from_str_radix(list, 16) {
            Ok(b't') => List::Transactions,
            Ok(b's') => List::Settlements,
            Ok(b'a') => List::Audit,
            _ => return Err(BadCursor::Malformed),
        };
        let position = u64::from_str_radix(position, 16).map_err(|_| BadCursor::Malformed)?.cast_signed();
        if list != List::Audit && !STORABLE.contains(&position) {
            return Err(BadCursor::Malformed);
        }
        let id = Uuid::try_parse(id).map_err(|_| BadCursor::Malformed)?;
        Ok(Self { list, position, id })
    }
}

impl TryFrom<String> for Cursor {
    type Error = BadCursor;

    fn try_from(text: String) -> Result<Self, BadCursor> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_is_within_its_bounds() {
        assert_eq!(PageSize::new(0).items(), 1);
        assert_eq!(PageSize::new(7).items(), 7);
        assert_eq!(PageSize::new(u16::MAX), PageSize::MAX);
    }

    #[test]
    fn a_page_knows_whether_there_is_a_next_one() {
        let end = |item: &i64| Cursor::at_number(List::Audit, *item);
        let page = Page::cut(vec![3, 2, 1], PageSize::new(2), end);
        assert_eq!((page.items, page.next), (vec![3, 2], Some(end(&2))));
        let page = Page::cut(vec![3, 2], PageSize::new(2), end);
        assert_eq!(page.next, None);
    }

    #[test]
    fn a_cursor_is_for_one_list() {
        let cursor = Cursor::at_number(List::Audit, 7);
        assert_eq!(cursor.number(List::Audit), Ok(7));
        assert_eq!(cursor.time(List::Settlements), Err(BadCursor::OtherList));
    }

    #[test]
    fn a_time_out_of_range_is_refused() {
        let text = format!("74{:016x}{}", i64::MAX, Uuid::nil().simple());
        assert_eq!(text.parse::<Cursor>(), Err(BadCursor::Malformed));
    }

    proptest! {
        #[test]
        fn a_cursor_is_decoded_as_it_was_encoded(micros in STORABLE, id in any::<u128>()) {
            let time = DateTime::from_timestamp_micros(micros).unwrap();
            let cursor = Cursor::at_time(List::Transactions, time, Uuid::from_u128(id));
            let back: Cursor = cursor.to_string().parse().unwrap();
            prop_assert_eq!(back.time(List::Transactions), Ok((time, Uuid::from_u128(id))));
        }

        #[test]
        fn other_text_is_refused_as_a_cursor(text in ".{0,60}|[0-9a-f]{48,52}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
