//! The cause that an operator sees when a node cannot be used, never a secret.

use pointsman::testkit::wait::until;
use std::time::Duration;

use pointsman::config::WriteSettings;
use pointsman::topology::{NodeRole, PrimaryStatus};
use pointsman::{CheckoutError, ConnectError};

use crate::support::{checkout_within, fixture, start, start_cluster, urls_of};

const SOON: Duration = Duration::from_millis(300);

/// The reason why the only node of a set serves nothing, as its users and `/health` see it.
async fn reason(url: String, is_expected: impl Fn(&ConnectError) -> bool) -> String {
    let writes = WriteSettings { failover_wait: SOON, ..WriteSettings::default() };
    let set = start(urls_of([url]).timeouts(checkout_within(SOON)).writes(writes)).await;
    let error = set.write().await.unwrap_err();
    let CheckoutError::NoPrimary { failures, .. } = &error else { panic!("{error}") };
    let cause = failures[0].error.as_deref().unwrap_or_else(|| panic!("{error}"));
    assert!(is_expected(cause), "{cause:?}");
    let shown = set.health().nodes[0].status.reason.clone().expect("a reason");
    let told = format!("{error}; {shown}");
    assert!(!told.contains("sesame"), "{told}");
    told
}

/// A misspelt name was taken for a stopped server: "no connection to its port: is the server running".
#[tokio::test]
async fn a_name_that_does_not_resolve_is_not_a_server_that_is_down() {
    let url = "postgres://app:open-sesame@no-such-host.invalid/payments".to_owned();
    let told = reason(url, |error| matches!(error, ConnectError::NameNotResolved(_))).await;
    assert!(told.contains("does not resolve") && told.contains("DNS"), "{told}");
    assert!(!told.contains("is the server running"), "{told}");
}

/// The error for a URL without a password was "the server did not let the session begin", as if the server were at
/// fault.
#[tokio::test]
async fn a_url_without_a_password_hears_that_the_server_asks_for_one() {
    let cluster = start_cluster(0).await;
    let mut url = cluster.primary().url();
    let (start, end) = (url.rfind(':').unwrap(), url.find('@').unwrap());
    assert!(start > end, "the last colon is that of the port");
    let start = url[..end].rfind(':').unwrap();
    url.replace_range(start..end, "");
    let told = reason(url, |error| matches!(error, ConnectError::PasswordMissing(_))).await;
    assert!(told.contains("asks for a password") && told.contains("pgpass"), "{told}");
    assert!(!told.contains("did not let the session begin"), "{told}");
}

/// `/health` showed two conflicting nodes without a reason: neither the other node's name, nor a remedy.
#[tokio::test]
async fn each_conflicting_primary_names_the_other_one_and_the_remedy() {
    let (cluster, set) = fixture(2).await;
    cluster.primary().kill().await.unwrap();
    let (one, other) = tokio::join!(cluster.replica(0).promote(), cluster.replica(1).promote());
    one.and(other).unwrap();
    until("both are seen", async || {
        matches!(set.topology().primary, PrimaryStatus::SplitBrain { .. })
            && set.topology().nodes[1..].iter().all(|node| node.role == NodeRole::Conflicting)
    })
    .await
    .unwrap();
    let nodes = set.health().nodes;
    for (node, other) in [(1, 2), (2, 1)] {
        let reason = nodes[node].status.reason.clone().expect("a reason");
        assert!(reason.contains(&nodes[other].status.name), "{reason}");
        assert!(reason.contains("timeline 2") && reason.contains("rebuild"), "{reason}");
        assert!(!reason.contains(&nodes[0].status.name), "the one that is down is none of them: {reason}");
    }
}
