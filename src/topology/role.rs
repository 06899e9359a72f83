//! The role of a connection's node.

use std::fmt;

use serde::Serialize;

/// The role in which a node serves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The node takes writes.
    Primary,
    /// The node replays what the primary wrote.
    Replica,
    /// The role is unknown, because the caller opened the connection.
    ///
    /// See [`Conn::borrow_from`](crate::Conn::borrow_from).
    Unmanaged,
}

impl Role {
    /// Returns the role in lower case, as in logs and headers.
    ///
    /// ```
    /// assert_eq!(pointsman::Role::Replica.as_str(), "replica");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unmanaged => "unmanaged",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
