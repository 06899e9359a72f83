//! A token in a cookie.

use http::HeaderValue;

/// A cookie that carries a causal token.
///
/// It is `HttpOnly` and `SameSite=Lax`, has the path `/`, and ends with the browser's session.
///
/// ```
/// use pointsman::tower::CausalCookie;
///
/// let cookie = CausalCookie::new("seen")?.secure();
/// assert!(CausalCookie::new("a b").is_err());
/// # Ok::<_, pointsman::tower::InvalidCookieName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CausalCookie {
    name: String,
    is_secure: bool,
}

/// The error for a name that no cookie can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cookie cannot have this name: use letters, digits, `-` and `_`")]
pub struct InvalidCookieName;

impl CausalCookie {
    /// Creates a cookie with this name: letters, digits, `-` and `_`.
    ///
    /// # Errors
    ///
    /// [`InvalidCookieName`] if the name is empty or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidCookieName> {
        let name = name.into();
        let is_valid =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if is_valid { Ok(Self { name, is_secure: false }) } else { Err(InvalidCookieName) }
    }

    /// Lets browsers send the cookie over HTTPS only (`Secure`).
    #[must_use]
    pub fn secure(self) -> Self {
        Self { is_secure: true, ..self }
    }

    /// Returns the value of the first cookie of this name.
    pub(super) fn find<'h>(&self, headers: impl IntoIterator<Item = &'h HeaderValue>) -> Option<&'h [u8]> {
        let cookies = headers.into_iter().flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
        cookies.map(<[u8]>::trim_ascii).find_map(|cookie| {
            let value = cookie.strip_prefix(self.name.as_bytes())?.strip_prefix(b"=")?;
            Some(value)
        })
    }

    /// Returns the `Set-Cookie` that stores a value.
    pub(super) fn set(&self, value: &str) -> Option<HeaderValue> {
        self.header(value, "")
    }

    /// Returns the `Set-Cookie` that removes the cookie.
    pub(super) fn removal(&self) -> Option<HeaderValue> {
        self.header("", "; Max-Age=0")
    }

    fn header(&self, value: &str, end: &str) -> Option<HeaderValue> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{end}", self.name);
        HeaderValue::from_str(&text).ok()
    }
}
