//! The text form of a token: versioned, bounded, and checked.
//!
//! It is URL-safe base64 of one byte for the form, eight for the cluster, twelve for each position, and a check: four
//! bytes of a hash against damage, or sixteen of a keyed hash against forgery.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::{CausalToken, TokenKey};
use crate::lsn::{Lsn, Positions};

/// The error for text that is not a valid token.
///
/// It does not quote the text, because that comes from a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// The text is no token: too long, cut off, or with other characters.
    #[error("not a causal token: send one as it was received, or none")]
    Malformed,
    /// The text has the form of a token, and its check fails.
    #[error("a damaged causal token: send one as it was received, or none")]
    Damaged,
    /// The token is signed with another key, or was changed.
    #[error("a causal token with a wrong signature: send one as it was received, or none")]
    Forged,
    /// The token is not signed, and a key is set; or it is signed, and none is set.
    #[error("a causal token of another form: both ends need the same token key, or none")]
    OtherForm,
}

/// The first byte of a token with a check against damage.
const PLAIN: u8 = 1;
/// The first byte of a signed token.
const SIGNED: u8 = 2;

/// Bytes of the check of a plain token.
const CHECK: usize = 4;
/// Bytes of a signature: half a SHA-256, as RFC 2104 permits.
const SIGNATURE: usize = 16;

/// Bytes before the positions, and of each position.
const HEAD: usize = 9;
const POSITION: usize = 12;

/// Characters of the longest token.
pub(crate) const LONGEST: usize = (HEAD + Positions::MAX * POSITION + SIGNATURE).div_ceil(3) * 4;

pub(super) fn write(token: &CausalToken, key: Option<&TokenKey>) -> String {
    let mut bytes = vec![if key.is_some() { SIGNED } else { PLAIN }];
    bytes.extend(token.system_identifier.to_be_bytes());
    for (timeline, position) in token.positions.iter() {
        bytes.extend(timeline.to_be_bytes());
        bytes.extend(position.as_u64().to_be_bytes());
    }
    match key {
        Some(key) => {
            let signature = mac(key, &bytes).finalize().into_bytes();
            bytes.extend_from_slice(&signature[..SIGNATURE]);
        }
        None => {
            let check = Sha256::digest(&bytes);
            bytes.extend_from_slice(&check[..CHECK]);
        }
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read(text: &str, key: Option<&TokenKey>) -> Result<CausalToken, InvalidToken> {
    if text.len() > LONGEST {
        return Err(InvalidToken::Malformed);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidToken::Malformed)?;
    let (form, check) = match key {
        Some(_) => (SIGNED, SIGNATURE),
        None => (PLAIN, CHECK),
    };
    match bytes.first() {
        Some(first) if *first == form => {}
        Some(&(PLAIN | SIGNED)) => return Err(InvalidToken::OtherForm),
        _ => return Err(InvalidToken::Malformed),
    }
    let content = bytes.len().checked_sub(check).ok_or(InvalidToken::Malformed)?;
    let (content, check) = bytes.split_at(content);
    match key {
        // Compared in constant time.
        Some(key) => {
            mac(key, content).verify_truncated_left(check).map_err(|_| InvalidToken::Forged)?;
        }
        None if Sha256::digest(content)[..CHECK] != *check => return Err(InvalidToken::Damaged),
        None => {}
    }
    parse(content).ok_or(InvalidToken::Malformed)
}

/// Parses the bytes before the check; `None` unless `write` makes exactly these.
fn parse(content: &[u8]) -> Option<CausalToken> {
    let (head, rest) = content.split_at_checked(HEAD)?;
    let (entries, rest) = rest.as_chunks::<POSITION>();
    let mut positions = Positions::default();
    let mut above = None;
    for entry in entries {
        let (timeline, position) = entry.split_at(4);
        let timeline = u32::from_be_bytes(timeline.try_into().ok()?);
        let position = u64::from_be_bytes(position.try_into().ok()?);
        if position == 0 || above.is_some_and(|above| timeline >= above) {
            return None;
        }
        above = Some(timeline);
        positions.record(timeline, Lsn::new(position));
    }
    let is_whole = rest.is_empty() && (1..=Positions::MAX).contains(&entries.len());
    let system_identifier = u64::from_be_bytes(head[1..].try_into().ok()?);
    is_whole.then_some(CausalToken { system_identifier, positions })
}

fn mac(key: &TokenKey, content: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("a key of any length is accepted");
    mac.update(content);
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> TokenKey {
        TokenKey::new(text).expect("a long key")
    }

    fn tokens() -> impl Strategy<Value = CausalToken> {
        let entries = prop::collection::vec((any::<u32>(), 1_u64..), 1..=Positions::MAX);
        (any::<u64>(), entries).prop_map(|(system_identifier, entries)| {
            let mut positions = Positions::default();
            for (timeline, position) in entries {
                positions.record(timeline, Lsn::new(position));
            }
            CausalToken { system_identifier, positions }
        })
    }

    #[test]
    fn a_token_is_short_enough_for_any_header() {
        let token = CausalToken::new(u64::MAX, 1, Lsn::new(u64::MAX));
        assert_eq!(token.to_string().len(), 34);
        assert_eq!(key("a key of more than sixteen bytes").sign(&token).len(), 50);
        const { assert!(LONGEST <= 100) };
    }

    #[test]
    fn a_token_in_a_document_is_its_text() {
        let token = CausalToken::new(7, 1, Lsn::new(500));
        let document = serde_json::to_string(&token).expect("a text");
        assert_eq!(document, format!("\"{token}\""));
        assert_eq!(serde_json::from_str::<CausalToken>(&document).expect("a token"), token);
        let error = serde_json::from_str::<CausalToken>("\"hello\"").expect_err("no token").to_string();
        assert!(error.contains("not a causal token") && !error.contains("hello"), "{error}");
    }

    #[test]
    fn other_text_is_refused_without_being_quoted() {
        for text in ["", "AQ", "hello world", "\u{1F600}", &"A".repeat(LONGEST), &"A".repeat(100_000)] {
            let error = text.parse::<CausalToken>().expect_err(text);
            assert_eq!(error, InvalidToken::Malformed, "{text}");
            assert!(text.len() < 3 || !error.to_string().contains(text));
        }
    }

    #[test]
    fn the_two_forms_are_not_mistaken_for_each_other() {
        let (token, key) = (CausalToken::new(7, 1, Lsn::new(500)), key("a key of more than sixteen bytes"));
        assert_eq!(key.verify(&token.to_string()), Err(InvalidToken::OtherForm));
        assert_eq!(key.sign(&token).parse::<CausalToken>(), Err(InvalidToken::OtherForm));
    }

    proptest! {
        #[test]
        fn a_token_is_parsed_as_it_is_displayed(token in tokens()) {
            let key = key("a key of more than sixteen bytes");
            prop_assert_eq!(token.to_string().parse(), Ok(token));
            prop_assert_eq!(key.verify(&key.sign(&token)), Ok(token));
        }

        #[test]
        fn a_change_of_any_character_is_noticed(token in tokens(), at: prop::sample::Index, new in "[A-Za-z0-9_-]") {
            for (text, key) in [
                (token.to_string(), None),
                (key("a key of more than sixteen bytes").sign(&token), Some(key("a key of more than sixteen bytes"))),
            ] {
                let i = at.index(text.len());
                let changed = format!("{}{new}{}", &text[..i], &text[i + 1..]);
                prop_assume!(changed != text);
                prop_assert!(read(&changed, key.as_ref()).is_err(), "{changed}");
            }
        }

        #[test]
        fn another_key_is_another_signature(token in tokens(), other in "[a-z]{16,40}") {
            let signed = key(&other).sign(&token);
            prop_assert_eq!(key("a key of more than sixteen bytes").verify(&signed), Err(InvalidToken::Forged));
        }

        /// No text makes the parser panic, and what it accepts is written back as it was.
        #[test]
        fn any_other_text_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80), form in 0_u8..4) {
            let text = URL_SAFE_NO_PAD.encode([&[form][..], &bytes].concat());
            if let Ok(token) = text.parse::<CausalToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
