//! A checkout whose intent is a type parameter of the caller.

use super::ReplicaSet;
use crate::conn::Conn;
use crate::error::CheckoutError;
use crate::{Intent, IntentKind};

impl ReplicaSet {
    /// Checks out a connection of the intent that a type parameter names.
    ///
    /// Calls [`read`](Self::read) or [`write`](Self::write), for code that is generic over the intent, such as an
    /// extractor of a web framework.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read) or [`write`](Self::write).
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes no connection.
    ///
    /// ```
    /// use pointsman::prelude::*;
    /// use pointsman::{CheckoutError, ReplicaSet};
    ///
    /// /// What a handler asks for in its signature: `Database<Read>` or `Database<Write>`.
    /// struct Database<I: Intent>(Conn<I>);
    ///
    /// impl<I: Intent> Database<I> {
    ///     async fn from_set(set: &ReplicaSet) -> Result<Self, CheckoutError> {
    ///         Ok(Self(set.checkout().await?))
    ///     }
    /// }
    /// ```
    pub async fn checkout<I: Intent>(&self) -> Result<Conn<I>, CheckoutError> {
        match I::KIND {
            IntentKind::Read => self.read().await.map(Conn::with_intent),
            IntentKind::Write => self.write().await.map(Conn::with_intent),
        }
    }
}
