//! The key that signs tokens for clients that are strangers.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::text;
use super::{CausalToken, InvalidToken};

/// A key that signs the tokens which leave the house (HMAC-SHA256).
///
/// With a key, a client can neither make up a token nor change one. It can still read one, and send an old one. All
/// programs that exchange tokens need the same key.
///
/// ```
/// use pointsman::{CausalToken, InvalidToken, Lsn, TokenKey};
///
/// let key = TokenKey::new("change me: at least sixteen bytes")?;
/// let token = CausalToken::new(7, 1, Lsn::new(500));
/// let text = key.sign(&token);
/// assert_eq!(key.verify(&text), Ok(token));
/// assert_eq!(TokenKey::new("the key of another program")?.verify(&text), Err(InvalidToken::Forged));
/// # Ok::<_, pointsman::InvalidTokenKey>(())
/// ```
#[derive(Clone)]
pub struct TokenKey(SecretString);

/// Bytes of the shortest key.
///
/// A signature has 16 bytes, so a shorter key would be easier to guess than a signature.
const SHORTEST: usize = 16;

/// The error for a key that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token key needs at least {SHORTEST} bytes: make one with `openssl rand -hex 32`")]
pub struct InvalidTokenKey;

impl TokenKey {
    /// Creates a key from at least 16 bytes of text.
    ///
    /// # Errors
    ///
    /// [`InvalidTokenKey`] if the text is shorter.
    pub fn new(key: impl Into<String>) -> Result<Self, InvalidTokenKey> {
        let key = SecretString::from(key.into());
        if key.expose_secret().len() < SHORTEST { Err(InvalidTokenKey) } else { Ok(Self(key)) }
    }

    /// Returns the text form of a token, signed with this key.
    pub fn sign(&self, token: &CausalToken) -> String {
        text::write(token, Some(self))
    }

    /// Parses a token, if it is signed with this key.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`], which does not quote the text.
    pub fn verify(&self, text: &str) -> Result<CausalToken, InvalidToken> {
        text::read(text, Some(self))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

/// Compares two settings; signatures are compared in constant time.
impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}
