//! A token that states the position which a node must have reached for a read.
//!
//! * [`CausalToken`]: the token, and its text form for headers and cookies
//! * [`TokenKey`]: signs the tokens that leave the program
//!
//! A database position orders everything that a cluster ever committed, so it is a logical clock (Lamport), and a
//! session that carries the highest position it has seen gets the session guarantees: it reads its own writes, and its
//! reads are monotonic.
//!
//! Source: D. B. Terry et al., "Session Guarantees for Weakly Consistent Replicated Data", PDIS 1994.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::key::{InvalidTokenKey, TokenKey};
pub use self::text::InvalidToken;
#[cfg(feature = "tower")]
pub(crate) use self::text::LONGEST;
use crate::lsn::{Lsn, Positions};

mod key;
mod text;

/// A position in the history of a cluster, which a later read must have reached.
///
/// A token consists of the cluster's system identifier and of positions in its write-ahead log, each with its timeline.
/// It has one position; after a failover it may have two or more, until the older ones are known to be part of the
/// present history.
///
/// [`Session`](crate::Session) makes and uses tokens. As text, a token goes into a header or a cookie:
///
/// ```
/// use pointsman::CausalToken;
///
/// # fn example(header: &str) -> Result<(), pointsman::InvalidToken> {
/// let token: CausalToken = header.parse()?;
/// assert_eq!(token.to_string(), header);
/// # Ok(())
/// # }
/// # example("AQAAAAAAAAAHAAAAAQAAAAAAAAH0m5dV8A").unwrap_or_default();
/// ```
///
/// The text form is opaque: only this crate reads it, and its form may change. It is not encrypted and not signed. A
/// client can read the cluster's identifier and positions from it, and two tokens tell how much the whole cluster wrote
/// in between. A client can also make one up. The node that reads it checks it against what the cluster has written, so
/// a made-up token costs its sender an error, or a short wait. [`TokenKey`] signs tokens for clients that are strangers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CausalToken {
    system_identifier: u64,
    positions: Positions,
}

impl CausalToken {
    /// Creates a token of one position.
    ///
    /// It is for positions that another program recorded. A write's position is the one *after* its COMMIT:
    /// `pg_current_wal_insert_lsn()` on the primary.
    ///
    /// ```
    /// use pointsman::CausalToken;
    ///
    /// let token = CausalToken::new(7_330_001_122_334_455_667, 1, "16/B374D848".parse()?);
    /// assert_eq!(token.timeline(), 1);
    /// # Ok::<_, pointsman::InvalidLsn>(())
    /// ```
    pub fn new(system_identifier: u64, timeline: u32, position: Lsn) -> Self {
        let mut positions = Positions::default();
        positions.record(timeline, position);
        Self { system_identifier, positions }
    }

    /// Creates a token of what a session has seen; `None` if it has seen nothing.
    pub(crate) fn of(system_identifier: u64, positions: Positions) -> Option<Self> {
        (!positions.is_empty()).then_some(Self { system_identifier, positions })
    }

    /// Returns the identifier of the cluster, which all its copies share.
    pub fn system_identifier(&self) -> u64 {
        self.system_identifier
    }

    /// Returns the highest timeline of the token; 0 if it has no position.
    pub fn timeline(&self) -> u32 {
        self.positions.iter().next().map_or(0, |(timeline, _)| timeline)
    }

    /// Returns the position on the highest timeline.
    pub fn position(&self) -> Lsn {
        self.positions.iter().next().map_or_else(Lsn::default, |(_, position)| position)
    }

    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Returns the token that requires what both require.
    ///
    /// `None` if they are of different clusters.
    ///
    /// ```
    /// use pointsman::{CausalToken, Lsn};
    ///
    /// let token = |position| CausalToken::new(7, 1, Lsn::new(position));
    /// assert_eq!(token(500).merge(&token(800)), Some(token(800)));
    /// assert_eq!(token(500).merge(&CausalToken::new(8, 1, Lsn::new(500))), None);
    /// ```
    #[must_use]
    pub fn merge(&self, other: &Self) -> Option<Self> {
        if self.system_identifier != other.system_identifier {
            return None;
        }
        let mut merged = *self;
        merged.positions.merge(&other.positions);
        Some(merged)
    }
}

impl fmt::Display for CausalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::write(self, None))
    }
}

impl fmt::Debug for CausalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions: Vec<_> =
            self.positions.iter().map(|(timeline, position)| format!("{timeline}:{position}")).collect();
        write!(f, "CausalToken({} {})", self.system_identifier, positions.join(" "))
    }
}

impl FromStr for CausalToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        text::read(text, None)
    }
}

/// Parses the text form.
impl<'de> Deserialize<'de> for CausalToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for CausalToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
