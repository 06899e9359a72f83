//! A program's output never holds a password: not in a log line, an error or a report.

use pointsman::testkit::wait::until;
use std::fmt::{Debug, Display};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::config::WriteSettings;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::{Config, ReplicaSet, SqlState};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::support::{builder_of, checkout_within, urls_of, value};

/// It needs encoding in a URL, and none of its pieces is in any other text.
const PASSWORD: &str = "kestrel@walrus/gannet?puffin";
const ENCODED: &str = "kestrel%40walrus%2Fgannet%3Fpuffin";
const WRONG: &str = "heron:osprey#curlew";

#[track_caller]
fn assert_secret(what: &str, shown: &str) {
    let pieces = ["kestrel", "walrus", "gannet", "puffin", "heron", "osprey", "curlew", "sesame"];
    for secret in pieces {
        let line = shown.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "`{secret}` of a password is in {what}: {}", line.unwrap_or_default());
    }
}

/// All output, in one place.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<u8>>>);

impl Record {
    fn note(&self, value: &(impl Debug + ?Sized)) {
        let text = format!("{value:?}\n{value:#?}\n");
        self.0.lock().unwrap().extend_from_slice(text.as_bytes());
    }

    fn note_error<E: std::error::Error + Display + 'static>(&self, error: &E) {
        self.note(error);
        let mut next: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = next {
            self.0.lock().unwrap().extend_from_slice(format!("{error}\n{error:?}\n").as_bytes());
            next = error.source();
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Record {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Records every event and span of this thread, of all crates; the test's runtime has no other thread.
fn listen() -> (Record, tracing::subscriber::DefaultGuard) {
    let record = Record::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(record.clone())
        .finish();
    (record, tracing::subscriber::set_default(subscriber))
}

async fn look_at_everything(record: &Record, set: &ReplicaSet) {
    record.note(set);
    record.note(&set.health());
    record.note(&*set.topology());
    record.note(&serde_json::to_string(&set.health()).unwrap());
    record.note(&serde_json::to_string(&*set.topology()).unwrap());
    record.note(&*set.config());
    record.note(&set.config().to_string());
    match set.read().await {
        Ok(conn) => record.note(&conn),
        Err(error) => record.note_error(&error),
    }
    match set.write().await {
        Ok(conn) => record.note(&conn),
        Err(error) => record.note_error(&error),
    }
}

fn impatient(builder: pointsman::config::ConfigBuilder) -> Config {
    // A changed password costs the client 4096 rounds of SCRAM, which are slow in a debug build.
    let soon = Duration::from_secs(1);
    let writes = WriteSettings { failover_wait: soon, ..WriteSettings::default() };
    builder.timeouts(checkout_within(soon)).writes(writes).build().unwrap()
}

#[tokio::test]
async fn no_password_is_logged_with_all_nodes_up_or_down() {
    let cluster = Cluster::builder().replicas(1).proxied().start().await.unwrap();
    cluster.primary().change_password(PASSWORD).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    assert!(cluster.primary().url().contains(ENCODED));
    let (record, _listening) = listen();

    // All is well.
    let set = ReplicaSet::connect(impatient(builder_of(cluster.servers()))).await.unwrap();
    until("both serve", async || set.write().await.is_ok() && set.read().await.is_ok()).await.unwrap();
    look_at_everything(&record, &set).await;
    let mut conn = set.write().await.unwrap();
    record.note_error(&diesel::sql_query("nonsense").execute(&conn).await.unwrap_err());
    let failed: Result<(), pointsman::Error> = conn
        .transaction(async |tx| {
            let _ = diesel::sql_query("nonsense").execute(tx).await;
            Ok(())
        })
        .await;
    record.note_error(&failed.unwrap_err());
    record.note(&conn.last_sqlstate());
    drop(conn);

    // A server goes away, and comes back with another role.
    cluster.primary().kill().await.unwrap();
    until("its loss is noticed", async || set.write().await.is_err()).await.unwrap();
    look_at_everything(&record, &set).await;
    cluster.replica(0).promote().await.unwrap();
    until("there is a primary", async || set.write().await.is_ok()).await.unwrap();
    look_at_everything(&record, &set).await;

    // The password is changed under the program, and the sessions end.
    let new = cluster.replica(0);
    new.change_password(WRONG).await.unwrap();
    new.restart().await.unwrap();
    until("it is refused", async || set.read().await.is_err()).await.unwrap();
    look_at_everything(&record, &set).await;
    set.close().await.unwrap();
    record.note_error(&set.read().await.unwrap_err());
    drop(set);

    // The network breaks in every way, with the password in the URL of a proxy.
    let proxy = new.proxy().await.unwrap();
    let url = new.proxied_url().await.unwrap();
    let set = ReplicaSet::connect(impatient(urls_of([url.clone()]))).await.unwrap();
    until("it is served through the proxy", async || set.write().await.is_ok()).await.unwrap();
    let conn = set.write().await.unwrap();
    proxy.cut_after(3).await.unwrap();
    record.note_error(&value(&conn, "SELECT 1").await.unwrap_err());
    look_at_everything(&record, &set).await;
    proxy.stall().await.unwrap();
    look_at_everything(&record, &set).await;
    proxy.refuse().await.unwrap();
    look_at_everything(&record, &set).await;
    drop((conn, set));

    // The errors of a configuration do not show its secrets.
    for wrong in [
        format!("{url}?sslmode=verify-full&sslrootcert=/no/such/file"),
        format!("{url}?no_such_parameter=1"),
        format!("{url}?sslmode={PASSWORD}"),
        format!("x{url}"),
    ] {
        let builder = Config::builder().primary(wrong);
        record.note(&builder);
        record.note_error(&builder.build().unwrap_err());
    }

    let text = record.text();
    assert!(text.contains("there is a primary"), "the events were recorded");
    assert!(text.contains(&SqlState::new(*b"28P01").to_string()), "and the refusal");
    assert_secret("what was written down", &text);
}
