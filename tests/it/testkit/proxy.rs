//! The network breaks between a client and its server.

use super::{ask, connect, hangs};
use crate::support::start_cluster;
use pointsman::testkit::Proxy;
use pointsman::testkit::wait::until;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// A server that echoes its input.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = peer.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    proxy
}

async fn say(peer: &mut TcpStream, text: &str) -> String {
    peer.write_all(text.as_bytes()).await.unwrap();
    let mut heard = vec![0; text.len()];
    peer.read_exact(&mut heard).await.unwrap();
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn a_passing_proxy_is_not_noticed_and_counts() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    let url = server.proxied_url().await.unwrap();
    assert_ne!(url, server.url());
    let client = connect(&url).await.unwrap();
    let long = ask(&client, "SELECT repeat('train', 1000000)").await.unwrap();
    assert_eq!(long.len(), 5_000_000);
    connect(&url).await.unwrap();
    assert_eq!(server.proxy().await.unwrap().accepted(), 2);
}

#[tokio::test]
async fn a_session_ends_at_the_server_when_its_client_leaves() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    let (client, connection) =
        tokio_postgres::connect(&server.proxied_url().await.unwrap(), tokio_postgres::NoTls).await.unwrap();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    assert_eq!(server.query_value(sessions).await.unwrap(), "1");
    // Without a goodbye, as of a client that was killed.
    drop((connection, client));
    until("the session ended", async || server.query_value(sessions).await.unwrap() == "0").await.unwrap();
}

#[tokio::test]
async fn a_refusing_proxy_refuses_new_connections_and_keeps_the_old() {
    let proxy = echo().await;
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut old, "before").await, "before");
    proxy.refuse().await.unwrap();
    for _ in 0..3 {
        let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(say(&mut old, "still").await, "still");
    proxy.pass().await.unwrap();
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut new, "again").await, "again");
}

#[tokio::test]
async fn a_reset_reaches_every_open_connection() {
    let proxy = echo().await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = TcpStream::connect(proxy.addr()).await.unwrap();
        say(&mut peer, "hello").await;
        peers.push(peer);
    }
    // One that the proxy may not even have seen.
    peers.push(TcpStream::connect(proxy.addr()).await.unwrap());
    proxy.reset().await.unwrap();
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut new, "again").await, "again");
}

#[tokio::test]
async fn a_stalled_proxy_holds_everything_and_then_lets_it_go() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    let (url, proxy) = (server.proxied_url().await.unwrap(), server.proxy().await.unwrap());
    let client = connect(&url).await.unwrap();
    proxy.stall().await.unwrap();
    assert!(hangs(connect(&url)).await);
    let answer = ask(&client, "SELECT 'late'");
    tokio::pin!(answer);
    assert!(hangs(&mut answer).await);
    // The network hangs; the server is healthy.
    assert_eq!(server.query_value("SELECT 1").await.unwrap(), "1");
    proxy.pass().await.unwrap();
    assert_eq!(answer.await.unwrap(), "late");

    proxy.stall().await.unwrap();
    let answer = ask(&client, "SELECT 'never'");
    tokio::pin!(answer);
    assert!(hangs(&mut answer).await);
    proxy.reset().await.unwrap();
    answer.await.unwrap_err();
}

#[tokio::test]
async fn latency_delays_replies_and_leaves_the_rate() {
    let proxy = echo().await;
    let mut peer = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut peer, "hello").await;
    let delay = Duration::from_millis(200);
    proxy.latency(delay).await.unwrap();
    let begin = Instant::now();
    // Twenty pieces that are under way at the same time, not one after the other.
    for _ in 0..20 {
        peer.write_all(b"piece").await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut heard = [0; 100];
    peer.read_exact(&mut heard).await.unwrap();
    let took = begin.elapsed();
    assert!(took >= delay, "{took:?}");
    assert!(took < 10 * delay, "{took:?}");
}

#[tokio::test]
async fn a_cut_comes_after_exactly_the_given_bytes_in_the_middle_of_a_reply() {
    let proxy = echo().await;
    let mut open = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut open, "hello").await;
    proxy.cut_after(7).await.unwrap();
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    for peer in [&mut open, &mut new] {
        peer.write_all(b"0123456789").await.unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"0123456");
    }

    let cluster = start_cluster(0).await;
    let url = cluster.primary().proxied_url().await.unwrap();
    let client = connect(&url).await.unwrap();
    cluster.primary().proxy().await.unwrap().cut_after(100).await.unwrap();
    let lost = ask(&client, "SELECT repeat('train', 1000)").await.unwrap_err();
    assert!(lost.is_closed() || lost.code().is_none(), "{lost}");
}

#[tokio::test]
async fn a_server_that_is_down_resets_what_its_proxy_accepts() {
    let cluster = start_cluster(0).await;
    let url = cluster.primary().proxied_url().await.unwrap();
    let client = connect(&url).await.unwrap();
    cluster.primary().kill().await.unwrap();
    ask(&client, "SELECT 'lost'").await.unwrap_err();
    connect(&url).await.unwrap_err();
    cluster.primary().start().await.unwrap();
    connect(&url).await.unwrap();
}
