//! The mode of a transaction, in the words of PostgreSQL.

use std::fmt;

/// Which commits of others the statements of a transaction see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsolationLevel {
    /// Each statement sees what was committed before it began.
    ReadCommitted,
    /// All statements see what was committed before the first of them.
    RepeatableRead,
    /// As if the transaction ran alone.
    Serializable,
}

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        })
    }
}

/// The access mode of a transaction: if the server permits writes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessMode {
    /// The server rejects writes.
    ReadOnly,
    /// The server permits writes, even if the session's default is read only.
    ReadWrite,
}

impl fmt::Display for AccessMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "READ ONLY",
            Self::ReadWrite => "READ WRITE",
        })
    }
}

/// The mode of a transaction; the session's defaults apply to what is not set.
///
/// `Display` is the statement that begins such a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TransactionMode {
    pub(crate) isolation: Option<IsolationLevel>,
    pub(crate) access: Option<AccessMode>,
    pub(crate) deferrable: bool,
}

impl fmt::Display for TransactionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BEGIN TRANSACTION")?;
        if let Some(level) = self.isolation {
            write!(f, " ISOLATION LEVEL {level}")?;
        }
        if let Some(access) = self.access {
            write!(f, " {access}")?;
        }
        if self.deferrable {
            f.write_str(" DEFERRABLE")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_the_statement_that_begins_it() {
        use AccessMode::{ReadOnly, ReadWrite};
        use IsolationLevel::{ReadCommitted, RepeatableRead, Serializable};

        for (isolation, access, deferrable, sql) in [
            (None, None, false, "BEGIN TRANSACTION"),
            (Some(ReadCommitted), None, false, "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED"),
            (None, Some(ReadWrite), false, "BEGIN TRANSACTION READ WRITE"),
            (
                Some(RepeatableRead),
                Some(ReadOnly),
                false,
                "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
            ),
            (
                Some(Serializable),
                Some(ReadOnly),
                true,
                "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
            ),
        ] {
            assert_eq!(TransactionMode { isolation, access, deferrable }.to_string(), sql);
        }
    }
}
