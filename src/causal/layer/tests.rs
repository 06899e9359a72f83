use std::convert::Infallible;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};

use super::{CausalCookie, CausalLayer, OnInvalidToken, RefusedToken};
use crate::{CausalToken, Config, InvalidToken, Lsn, ReplicaSet, Session, TokenKey};

/// A set whose one node cannot be reached, so nothing is known of the cluster.
async fn set() -> ReplicaSet {
    // Port 1 of this machine refuses at once.
    let config = Config::builder().primary("postgres://app@127.0.0.1:1/app").build().unwrap();
    ReplicaSet::connect(config).await.unwrap()
}

fn token(position: u64) -> CausalToken {
    CausalToken::new(7, 1, Lsn::new(position))
}

fn key() -> TokenKey {
    TokenKey::new("a key of more than sixteen bytes").unwrap()
}

/// Sends a request to a service that answers with the token that its session began with.
async fn send(layer: &CausalLayer<String>, headers: &[(HeaderName, &str)]) -> Response<String> {
    let inner = service_fn(|request: Request<()>| async move {
        let session = request.extensions().get::<Session>().expect("a session").clone();
        let seen = session.token().map(|token| token.to_string());
        Ok::<_, Infallible>(Response::new(seen.unwrap_or_default()))
    });
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    layer.layer(inner).oneshot(request).await.unwrap()
}

fn header<'r>(response: &'r Response<String>, name: &HeaderName) -> &'r str {
    response.headers()[name].to_str().unwrap()
}

const HEADER: HeaderName = super::HEADER;

#[tokio::test]
async fn the_token_of_a_request_goes_into_its_session_and_back() {
    let layer = CausalLayer::new(set().await);
    let response = send(&layer, &[]).await;
    assert_eq!(response.body(), "", "a new session has seen nothing");
    assert!(response.headers().is_empty(), "so there is no token: {:?}", response.headers());

    let text = token(500).to_string();
    let response = send(&layer, &[(HEADER, &text)]).await;
    assert_eq!((response.body(), header(&response, &HEADER)), (&text, &*text));

    let other = HeaderName::from_static("x-seen");
    let layer = layer.header(other.clone());
    let response = send(&layer, &[(HEADER, "ignored"), (other.clone(), &text)]).await;
    assert_eq!((response.body(), header(&response, &other)), (&text, &*text));
}

#[tokio::test]
async fn a_cookie_carries_the_token_beside_others() {
    let cookie = CausalCookie::new("seen").unwrap();
    let layer = CausalLayer::new(set().await).cookie(cookie.clone().secure()).without_header();
    let text = token(500).to_string();
    let response = send(&layer, &[(COOKIE, &format!("unseen=1; seen={text};seen2=2"))]).await;
    assert_eq!(response.body(), &text);
    let expected = format!("seen={text}; Path=/; HttpOnly; SameSite=Lax; Secure");
    assert_eq!(header(&response, &SET_COOKIE), expected);
    assert!(!response.headers().contains_key(HEADER));

    // With a header as well, the session covers both.
    let layer = CausalLayer::new(set().await).cookie(cookie);
    let later = token(800).to_string();
    for (in_header, in_cookie) in [(&text, &later), (&later, &text)] {
        let headers = [(HEADER, &**in_header), (COOKIE, &*format!("seen={in_cookie}"))];
        assert_eq!(send(&layer, &headers).await.headers()[HEADER], *later);
    }
}

#[tokio::test]
async fn an_invalid_token_is_rejected_or_ignored() {
    let layer = CausalLayer::new(set().await).cookie(CausalCookie::new("seen").unwrap());
    let (plain, signed) = (token(500).to_string(), key().sign(&token(500)));
    let damaged = format!("{}z{}", &plain[..30], &plain[31..]);
    for (text, reason) in [
        ("hello", InvalidToken::Malformed),
        ("\u{e9}", InvalidToken::Malformed),
        (&*"A".repeat(100_000), InvalidToken::Malformed),
        (&*damaged, InvalidToken::Damaged),
        (&*signed, InvalidToken::OtherForm),
    ] {
        let response = send(&layer, &[(HEADER, text)]).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(*response.body(), format!("{reason}\n"));
        assert!(!response.headers().contains_key(HEADER));
        let ignore = layer.clone().on_invalid(OnInvalidToken::Ignore);
        let response = send(&ignore, &[(HEADER, text)]).await;
        assert_eq!((response.status(), &**response.body()), (StatusCode::OK, ""));

        // A browser cannot correct its cookie, so that is ignored, and removed.
        let removal = "seen=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0";
        let cookie = format!("seen={text}");
        let response = send(&layer, &[(COOKIE, &cookie)]).await;
        assert_eq!((response.status(), header(&response, &SET_COOKIE)), (StatusCode::OK, removal));
        let reject = layer.clone().on_invalid(OnInvalidToken::Reject);
        let response = send(&reject, &[(COOKIE, &cookie)]).await;
        assert_eq!((response.status(), header(&response, &SET_COOKIE)), (StatusCode::BAD_REQUEST, removal));
    }
}

#[tokio::test]
async fn with_a_key_only_its_tokens_count() {
    let configured =
        Config::builder().primary("postgres://app@127.0.0.1:1/app").token_key(key()).build().unwrap();
    let configured = CausalLayer::new(ReplicaSet::connect(configured).await.unwrap());
    for layer in [CausalLayer::new(set().await).key(key()), configured] {
        let signed = key().sign(&token(500));
        let response = send(&layer, &[(HEADER, &signed)]).await;
        assert_eq!((response.body(), header(&response, &HEADER)), (&token(500).to_string(), &*signed));
        for forged in
            [token(500).to_string(), TokenKey::new("another key of that length").unwrap().sign(&token(500))]
        {
            assert_eq!(send(&layer, &[(HEADER, &forged)]).await.status(), StatusCode::BAD_REQUEST);
        }
        assert!(!format!("{layer:?}").contains("sixteen"));
    }
}

#[tokio::test]
async fn the_caller_makes_the_response_to_a_rejected_request() {
    let layer = CausalLayer::new(set().await).reject_with(|refused| {
        assert_eq!(*refused, RefusedToken::Text(InvalidToken::Malformed));
        let mut response = Response::new("sign in again".to_owned());
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    });
    let response = send(&layer, &[(HEADER, "hello")]).await;
    assert_eq!((response.status(), &**response.body()), (StatusCode::FORBIDDEN, "sign in again"));
}

#[tokio::test]
async fn a_hostile_cookie_opens_a_new_session_and_is_not_repeated() {
    let layer = CausalLayer::new(set().await).cookie(CausalCookie::new("seen").unwrap());
    let valid = token(500).to_string();
    let removal = "seen=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0";
    for (cookies, is_removed) in [
        ("seen".to_owned(), false),
        (";;; =; ==".to_owned(), false),
        (format!("Seen={valid}; unseen={valid}; seen2={valid}"), false),
        (format!("x=seen={valid}"), false),
        ("seen=".to_owned(), true),
        (format!("seen=={valid}"), true),
        (format!("seen=\"{valid}\""), true),
        (format!("seen={valid}, seen={valid}"), true),
        (format!("seen={valid}%00"), true),
        (format!("seen={valid} Path=/"), true),
        (format!("seen=hello; seen={valid}"), true),
        (format!("seen={}", "A".repeat(60_000)), true),
        ("seen=\u{1F600}\u{e9}".to_owned(), true),
    ] {
        let response = send(&layer, &[(COOKIE, &cookies)]).await;
        assert_eq!((response.status(), &**response.body()), (StatusCode::OK, ""), "{cookies}");
        let set: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        assert_eq!(set, if is_removed { vec![removal] } else { vec![] }, "{cookies}");
        assert_eq!(response.headers().len(), set.len(), "{cookies}");
    }
}
