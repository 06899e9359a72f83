//! Notifications across failovers: an interruption is never silent.

use pointsman::testkit::wait::until;
use std::time::Duration;

use diesel::sql_types::Text;
use pointsman::InvalidChannel;
use pointsman::listen::{Gap, Interruption, ListenEvent, Listener};
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use pointsman::{CheckoutError, ListenError, ReplicaSet};
use tokio::time::{sleep, timeout};

use crate::support::{builder_of, config_of, connect, fixture, set_of, start, start_cluster, urls_of, value};

/// Long, because a slow machine is not a broken one.
const LIMIT: Duration = Duration::from_secs(20);

async fn next(listener: &mut Listener) -> ListenEvent {
    let event = timeout(LIMIT, listener.next()).await.expect("an event in time");
    event.expect("the stream goes on")
}

/// The next notification: its channel and its payload.
async fn heard(listener: &mut Listener) -> (String, String) {
    match next(listener).await {
        ListenEvent::Notification(notification) => (notification.channel, notification.payload),
        other => panic!("{other:?}"),
    }
}

fn pair(channel: &str, payload: &str) -> (String, String) {
    (channel.to_owned(), payload.to_owned())
}

async fn notify(set: &ReplicaSet, channel: &str, payload: &str) {
    let conn = set.write().await.expect("a primary");
    let notify = diesel::sql_query("SELECT pg_notify($1, $2)").bind::<Text, _>(channel);
    notify.bind::<Text, _>(payload).execute(&conn).await.expect("notified");
}

/// The sessions on which a set listens, by their last statement.
const LISTENING: &str = "pg_stat_activity WHERE usename = 'app' AND \
    (query LIKE '%LISTEN \"%' OR query LIKE '-- pointsman listens%')";

/// Sessions at a server on which a set listens.
async fn listening(server: &Server) -> String {
    server.query_value(&format!("SELECT count(*) FROM {LISTENING}")).await.expect("a count")
}

async fn no_session_listens(server: &Server) {
    until("no session listens", async || listening(server).await == "0").await.unwrap();
}

async fn terminate_listener(server: &Server) {
    let sql = format!("SELECT pg_terminate_backend(pid) FROM {LISTENING}");
    server.execute(&sql).await.expect("terminated");
}

/// The events of an interruption: two of them, whatever was received before.
async fn interrupted(listener: &mut Listener) -> (Interruption, Gap) {
    let reason = match next(listener).await {
        ListenEvent::Interrupted { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    match next(listener).await {
        ListenEvent::MayHaveMissed(gap) => (reason, gap),
        other => panic!("{other:?}"),
    }
}

fn is_portable<T: Send + Unpin + futures_util::Stream<Item = ListenEvent> + 'static>(_: &T) {}

#[tokio::test]
async fn notifications_are_heard_with_their_channel_payload_and_sender() {
    let (_cluster, set) = fixture(1).await;
    let odd = ["Orders", "orders", "a\"b", "with space; --", "ž", &"x".repeat(63)];
    let mut listener = set.listen(odd).await.unwrap();
    is_portable(&listener);
    for channel in odd {
        notify(&set, channel, "7").await;
        assert_eq!(heard(&mut listener).await, pair(channel, "7"));
    }
    // Of a transaction at its commit alone, and once.
    let mut conn = set.write().await.unwrap();
    let process: i32 = value(&conn, "SELECT pg_backend_pid()").await.unwrap().parse().unwrap();
    conn.transaction(async |tx| -> QueryResult<()> {
        for payload in ["1", "1", "2"] {
            diesel::sql_query(format!("NOTIFY orders, '{payload}'")).execute(tx).await?;
        }
        Ok(())
    })
    .await
    .unwrap();
    let rolled_back = conn.transaction(async |tx| -> QueryResult<()> {
        diesel::sql_query("NOTIFY orders, 'never'").execute(tx).await?;
        Err(diesel::result::Error::RollbackTransaction)
    });
    rolled_back.await.unwrap_err();
    drop(conn);
    notify(&set, "unheard", "").await;
    notify(&set, "orders", "").await;
    for payload in ["1", "2"] {
        match next(&mut listener).await {
            ListenEvent::Notification(heard) => {
                assert_eq!((heard.channel.as_str(), heard.payload.as_str()), ("orders", payload));
                assert_eq!(heard.process_id, process);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard(&mut listener).await, pair("orders", ""));
}

#[tokio::test]
async fn an_invalid_channel_name_is_in_the_error() {
    let (cluster, set) = fixture(0).await;
    assert!(matches!(set.listen([""; 0]).await, Err(ListenError::NoChannels)));
    for (bad, expected) in [
        ("", InvalidChannel::Empty),
        (&"x".repeat(64), InvalidChannel::TooLong { bytes: 64 }),
        ("a\0b", InvalidChannel::Nul),
    ] {
        let error = set.listen(["orders", bad]).await.expect_err("it is refused");
        match &error {
            ListenError::Channel { name, reason } => assert_eq!((name.as_str(), *reason), (bad, expected)),
            other => panic!("{other}"),
        }
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        // The server refuses to notify the names that are refused here.
        let conn = set.write().await.unwrap();
        let notify = diesel::sql_query("SELECT pg_notify($1, '')").bind::<Text, _>(bad);
        notify.execute(&conn).await.expect_err("it is no channel");
    }
    assert_eq!(listening(cluster.primary()).await, "0");
}

#[tokio::test]
async fn channels_can_be_added_and_removed() {
    let (cluster, set) = fixture(0).await;
    let mut listener = set.listen(["a"]).await.unwrap();
    listener.listen(["b"]).await.unwrap();
    notify(&set, "b", "1").await;
    assert_eq!(heard(&mut listener).await, pair("b", "1"));
    listener.unlisten(["a", "never"]).await.unwrap();
    notify(&set, "a", "unheard").await;
    // Also after the session was replaced.
    terminate_listener(cluster.primary()).await;
    interrupted(&mut listener).await;
    notify(&set, "a", "unheard").await;
    notify(&set, "b", "2").await;
    assert_eq!(heard(&mut listener).await, pair("b", "2"));
    assert!(matches!(listener.listen(["a\0"]).await, Err(ListenError::Channel { .. })));
}

#[tokio::test]
async fn a_session_that_the_server_ends_is_replaced_and_the_gap_is_told() {
    let (cluster, set) = fixture(1).await;
    let mut listener = set.listen(["orders"]).await.unwrap();
    terminate_listener(cluster.primary()).await;
    let (reason, gap) = interrupted(&mut listener).await;
    let code = match reason {
        Interruption::Disconnected { sqlstate } => sqlstate.map(|code| code.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(code.as_deref(), Some("57P01"));
    assert!(matches!(gap, Gap::Reconnected { .. }), "{gap:?}");
    notify(&set, "orders", "1").await;
    assert_eq!(heard(&mut listener).await, pair("orders", "1"));
}

/// Fails over while a set listens; returns the events of the failover, and receives a notification of the new primary.
async fn fail_over(cluster: &Cluster, set: &ReplicaSet, listener: &mut Listener) -> (Interruption, Gap) {
    let new_primary = cluster.replica(0);
    new_primary.promote().await.unwrap();
    let events = interrupted(listener).await;
    notify(set, "orders", "2").await;
    assert_eq!(heard(listener).await, pair("orders", "2"));
    assert_eq!(listening(new_primary).await, "1");
    events
}

fn node_of(gap: Gap) -> String {
    match gap {
        Gap::Reconnected { node, .. } => node,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_follows_to_the_new_primary_when_the_old_one_is_killed() {
    let (cluster, set) = fixture(1).await;
    let mut listener = set.listen(["orders"]).await.unwrap();
    notify(&set, "orders", "1").await;
    assert_eq!(heard(&mut listener).await, pair("orders", "1"));
    cluster.primary().kill().await.unwrap();
    let (_, gap) = fail_over(&cluster, &set, &mut listener).await;
    let conn = set.write().await.unwrap();
    assert_eq!(node_of(gap), conn.node());
}

/// A hung primary sends nothing on the socket; without its monitor the stream would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_leaves_a_hung_primary_and_hears_nothing_from_it_afterwards() {
    let (cluster, set) = fixture(1).await;
    let old = cluster.primary();
    let mut listener = set.listen(["orders"]).await.unwrap();
    old.pause().await.unwrap();
    let (reason, _) = fail_over(&cluster, &set, &mut listener).await;
    assert_eq!(reason, Interruption::Closed);
    old.resume().await.unwrap();
    old.execute("NOTIFY orders, 'of the old primary'").await.unwrap();
    no_session_listens(old).await;
    notify(&set, "orders", "3").await;
    assert_eq!(heard(&mut listener).await, pair("orders", "3"));
}

/// The node is healthy for its monitor, which connected before; only the idle connections in between are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_notices_a_session_that_ended_without_a_packet() {
    let cluster = start_cluster(0).await;
    let proxy = cluster.primary().proxy().await.unwrap();
    let probe = pointsman::config::ProbeSettings {
        timeout: Duration::from_secs(60),
        ..pointsman::config::ProbeSettings::default()
    };
    let reads = pointsman::config::ReadSettings {
        max_lag: Duration::from_secs(120),
        ..pointsman::config::ReadSettings::default()
    };
    let url = cluster.primary().proxied_url().await.unwrap();
    let set = start(urls_of([url]).probe(probe).reads(reads)).await;
    let mut listener = set.listen(["orders"]).await.unwrap();
    proxy.stall().await.unwrap();
    match next(&mut listener).await {
        ListenEvent::Interrupted { reason: Interruption::NoAnswer { .. }, .. } => {}
        other => panic!("{other:?}"),
    }
    proxy.pass().await.unwrap();
    assert!(matches!(next(&mut listener).await, ListenEvent::MayHaveMissed(_)));
    notify(&set, "orders", "1").await;
    assert_eq!(heard(&mut listener).await, pair("orders", "1"));
}

#[tokio::test]
async fn a_listener_that_is_not_polled_holds_up_no_server_and_reports_the_loss() {
    let (cluster, set) = fixture(0).await;
    let mut listener = set.listen(["orders"]).await.unwrap();
    let burst = "SELECT pg_notify('orders', lpad(n::text, 7000, '0')) FROM generate_series(1, 3000) AS n";
    cluster.primary().execute(burst).await.unwrap();
    let usage = "SELECT pg_notification_queue_usage()";
    until("the server has got rid of all of them", async || {
        cluster.primary().query_value(usage).await.unwrap() == "0"
    })
    .await
    .unwrap();
    let mut numbers = Vec::new();
    loop {
        match next(&mut listener).await {
            ListenEvent::Notification(heard) => numbers.push(heard.payload.parse::<u32>().unwrap()),
            ListenEvent::MayHaveMissed(Gap::Overflow) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(numbers, (1..=1024).collect::<Vec<_>>());
    notify(&set, "orders", "after").await;
    assert_eq!(heard(&mut listener).await, pair("orders", "after"));
}

#[tokio::test]
async fn closing_or_dropping_the_set_ends_the_stream_and_its_session() {
    let cluster = start_cluster(1).await;
    for close in [true, false] {
        let set = connect(&cluster).await;
        let mut listener = set.listen(["orders"]).await.unwrap();
        notify(&set, "orders", "1").await;
        // A connection that outlives the set keeps its node, but not the listener.
        let conn = set.read().await.unwrap();
        if close {
            drop(conn);
            set.close().await.unwrap();
        } else {
            drop(set);
        }
        assert_eq!(heard(&mut listener).await, pair("orders", "1"), "what was heard is not lost");
        assert_eq!(next(&mut listener).await, ListenEvent::Closed);
        assert_eq!(timeout(LIMIT, listener.next()).await.unwrap(), None);
        no_session_listens(cluster.primary()).await;
        let error = listener.listen(["more"]).await.expect_err("it is over");
        assert!(matches!(error, ListenError::Checkout(CheckoutError::Closed)), "{error}");
    }
    let set = connect(&cluster).await;
    set.close().await.unwrap();
    let error = set.listen(["orders"]).await.expect_err("the set is closed");
    assert!(matches!(error, ListenError::Checkout(CheckoutError::Closed)), "{error}");
}

#[tokio::test]
async fn a_dropped_stream_and_a_dropped_call_leave_no_session() {
    let (cluster, set) = fixture(0).await;
    let listener = set.listen(["orders"]).await.unwrap();
    assert_eq!(listening(cluster.primary()).await, "1");
    drop(listener);
    no_session_listens(cluster.primary()).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    let before = cluster.primary().query_value(sessions).await.unwrap();
    for micros in (0..6000).step_by(200) {
        let _ = timeout(Duration::from_micros(micros), set.listen(["orders"])).await;
    }
    until("all of them have ended", async || {
        cluster.primary().query_value(sessions).await.unwrap() == before
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_waits_for_a_primary_as_a_write_does() {
    let cluster = start_cluster(1).await;
    cluster.primary().kill().await.unwrap();
    let writes = |wait| pointsman::config::WriteSettings { failover_wait: wait, ..Default::default() };
    let hurried = start(builder_of(cluster.servers()).writes(writes(Duration::from_millis(300)))).await;
    let error = hurried.listen(["orders"]).await.expect_err("there is none");
    assert!(matches!(error, ListenError::Checkout(CheckoutError::NoPrimary { .. })), "{error}");
    let set = start(builder_of(cluster.servers()).writes(writes(LIMIT))).await;
    let waiting = {
        let set = set.clone();
        tokio::spawn(async move { set.listen(["orders"]).await })
    };
    sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    cluster.replica(0).promote().await.unwrap();
    let mut listener = waiting.await.unwrap().expect("the new primary");
    notify(&set, "orders", "1").await;
    assert_eq!(heard(&mut listener).await, pair("orders", "1"));
}

#[tokio::test]
async fn a_listener_takes_up_a_new_configuration() {
    let cluster = start_cluster(0).await;
    let set = set_of(cluster.servers()).await;
    let mut listener = set.listen(["orders"]).await.unwrap();
    let url = format!("{}?application_name=renamed", cluster.primary().url());
    set.reconfigure(urls_of([url]).build().unwrap()).await.unwrap();
    let (reason, _) = interrupted(&mut listener).await;
    assert_eq!(reason, Interruption::Reconfigured);
    let name = format!("SELECT application_name FROM {LISTENING}");
    assert_eq!(cluster.primary().query_value(&name).await.unwrap(), "renamed");
    // The same settings again are no reason.
    set.reconfigure(config_of(cluster.servers())).await.unwrap();
    interrupted(&mut listener).await;
    set.reconfigure(config_of(cluster.servers())).await.unwrap();
    notify(&set, "orders", "1").await;
    assert_eq!(heard(&mut listener).await, pair("orders", "1"));
}
