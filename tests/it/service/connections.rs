//! Connections that send slowly, or nothing, and requests out of the ordinary, over TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::payments::http::{Service, Settings};
use pointsman::testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Fixture;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

const HALF_A_HEAD: &str = "POST /callbacks HTTP/1.1\r\nhost: localhost\r\ncontent-";

/// A service that listens, and the means to end it.
struct Served {
    fixture: Fixture,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Served {
    async fn start(settings: Settings) -> Self {
        let fixture = Fixture::start(0).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = Service::with_settings(fixture.set.clone(), settings);
        let serving = tokio::spawn(service.serve(listener, async { stopped.await.unwrap_or_default() }));
        Self { fixture, address, stop, serving }
    }

    async fn open(&self, start: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        stream
    }

    /// Sends bytes, and returns everything that is answered until the service closes the connection.
    async fn exchange(&self, bytes: &str) -> String {
        read_to_end(self.open(bytes).await).await
    }
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an end of the connection");
    String::from_utf8(answer).unwrap()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
}

/// 3,000 connections with half a head were open after 45 s.
#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed() {
    let head_timeout = Duration::from_millis(200);
    let served = Served::start(Settings { head_timeout, ..Settings::default() }).await;
    for start in ["", "GET", HALF_A_HEAD] {
        let answer = served.exchange(start).await;
        assert!(!answer.contains("200 OK"), "{start:?}: {answer}");
    }
    // It serves others as before.
    assert!(served.exchange(&get("/live", "")).await.starts_with("HTTP/1.1 200"));
}

/// 300 connections with half a head took all file descriptors, so `/live` was not answered any more.
#[tokio::test]
async fn half_sent_heads_keep_no_probe_from_its_answer() {
    let served = Served::start(Settings { max_connections: 20, ..Settings::default() }).await;
    let held = join_all((0..100).map(|_| served.open(HALF_A_HEAD))).await;
    for _ in 0..10 {
        assert!(served.exchange(&get("/live", "")).await.starts_with("HTTP/1.1 200"));
    }
    // The oldest ones made room; the rest may still send their heads.
    assert_eq!(held.len(), 100);
}

/// One half-sent head delayed the end of the service by 20 s.
#[tokio::test]
async fn half_a_head_does_not_delay_the_end() {
    let served =
        Served::start(Settings { head_timeout: LONG, drain_timeout: LONG, ..Settings::default() }).await;
    let held = served.open(HALF_A_HEAD).await;
    // The service has accepted it once a later connection is answered.
    assert!(served.exchange(&get("/live", "")).await.starts_with("HTTP/1.1 200"));
    let asked = Instant::now();
    served.stop.send(()).unwrap();
    served.serving.await.unwrap().expect("nothing was in flight");
    assert!(asked.elapsed() < LONG / 4, "{:?}", asked.elapsed());
    drop(held);
}

/// A slow body was answered 500 `outcome_unknown`, although nothing of it had arrived.
#[tokio::test]
async fn a_body_that_does_not_arrive_is_a_timeout_of_the_client() {
    let body_timeout = Duration::from_millis(200);
    let served = Served::start(Settings { body_timeout, ..Settings::default() }).await;
    let head = "POST /callbacks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/json\r\ncontent-length: 50\r\n\r\n{\"idem";
    let answer = served.exchange(head).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
    assert_eq!(served.fixture.rows("transactions").await, "0");
}

/// A client that announced 100 MB was told to send them.
#[tokio::test]
async fn an_announced_body_that_is_too_large_is_refused_before_it_is_sent() {
    let served = Served::start(Settings::default()).await;
    let head = "POST /callbacks HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
                content-type: application/json\r\ncontent-length: 100000000\r\n\r\n";
    let answer = served.exchange(head).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
}

#[tokio::test]
async fn a_request_id_is_kept_only_if_it_is_short() {
    let served = Served::start(Settings::default()).await;
    let short = served.exchange(&get("/live", "x-request-id: abc-1\r\n")).await;
    assert!(short.contains("x-request-id: abc-1\r\n"), "{short}");
    let long = "x".repeat(5000);
    let answer = served.exchange(&get("/live", &format!("x-request-id: {long}\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-request-id: "), "{answer}");
    assert!(!answer.contains(&long[..129]), "{answer}");
}

/// A request in flight is finished, also if its connection was open when the end was asked for.
#[tokio::test]
async fn a_request_in_flight_is_answered_at_the_end() {
    let served = Served::start(Settings::default()).await;
    let lock = served.fixture.cluster.primary().url().to_owned();
    let (client, connection) = tokio_postgres::connect(&lock, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE transactions").await.unwrap();
    let reading = served.open(&get("/transactions", "")).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until("the request waits for the lock", async || {
        served.fixture.cluster.primary().query_value(waits).await.is_ok_and(|number| number != "0")
    })
    .await
    .unwrap();

    served.stop.send(()).unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert!(read_to_end(reading).await.starts_with("HTTP/1.1 200"));
    served.serving.await.unwrap().expect("everything was answered");
    drop(client);
    connection.await.unwrap().unwrap();
}
