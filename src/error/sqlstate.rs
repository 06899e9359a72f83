//! SQLSTATE, the five-character error codes of PostgreSQL.

use std::fmt;

/// An error code of PostgreSQL.
///
/// Codes are listed in the PostgreSQL documentation, appendix A. The first two characters are the class.
///
/// ```
/// use pointsman::SqlState;
///
/// let code = SqlState::new(*b"40P01");
/// assert_eq!(code, SqlState::DEADLOCK_DETECTED);
/// assert_eq!((code.to_string().as_str(), code.class()), ("40P01", "40"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// A write was tried in a read-only transaction, on a standby for example.
    pub const READ_ONLY_SQL_TRANSACTION: Self = Self(*b"25006");
    /// A transaction could not be serialized with others.
    pub const SERIALIZATION_FAILURE: Self = Self(*b"40001");
    /// Two transactions waited for each other.
    pub const DEADLOCK_DETECTED: Self = Self(*b"40P01");
    /// The server has no connection slot left.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// A statement was cancelled: by request, by a timeout, or by replay on a standby.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// The server is being shut down, or this session was ended by an administrator.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// Another server process crashed, and all sessions were ended.
    pub const CRASH_SHUTDOWN: Self = Self(*b"57P02");
    /// The server takes no connections: it is starting, stopping or recovering.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");

    /// Creates a code from its five characters.
    pub const fn new(code: [u8; 5]) -> Self {
        Self(code)
    }

    /// Returns the code's class, its first two characters.
    pub fn class(&self) -> &str {
        std::str::from_utf8(&self.0[..2]).unwrap_or("??")
    }

    /// Returns `true` if the code means that the session or the server is ending.
    pub fn ends_session(self) -> bool {
        matches!(self, Self::ADMIN_SHUTDOWN | Self::CRASH_SHUTDOWN | Self::CANNOT_CONNECT_NOW)
    }

    /// Returns `true` if the failed transaction may succeed if all of it runs again.
    pub fn is_transient_conflict(self) -> bool {
        matches!(self, Self::SERIALIZATION_FAILURE | Self::DEADLOCK_DETECTED)
    }

    pub(crate) fn pack(self) -> u64 {
        let [a, b, c, d, e] = self.0;
        u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
    }

    pub(crate) fn unpack(packed: u64) -> Option<Self> {
        let [_, _, _, code @ ..] = packed.to_be_bytes();
        (packed != 0).then_some(Self(code))
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("?????"))
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({self})")
    }
}
