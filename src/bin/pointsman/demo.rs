//! `pointsman demo`: the service with traffic and faults, on a temporary cluster.
//!
//! * `fixture`: the cluster, the set and the service
//! * `traffic`: the requests of its users
//! * `chaos`: the walk through the faults, with `--chaos`
//! * `tokens`: stale reads with and without causal tokens
//! * `verdict`: the effects that users may notice of each fault

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::time::{Instant, interval, sleep};

use self::fixture::Fixture;
use self::traffic::Traffic;
use super::duration;
use super::failure::Outcome;
use super::signals::End;

mod chaos;
mod fixture;
mod tokens;
mod traffic;
mod verdict;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The address to serve on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Ends by itself after this time, such as 30s.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    limit: Option<Duration>,
    /// Walks through the faults while traffic runs, and reports what the users noticed. It fails if that is more than
    /// the faults explain.
    #[arg(long)]
    chaos: bool,
    /// Writes the users' results to this file, as JSON.
    #[arg(long, value_name = "FILE", requires = "chaos")]
    json: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut end = End::listen()?;
    // First, because it fails fast: a port in use should not cost a start of servers.
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| {
        format!("cannot listen on {}: choose another address with --listen", arguments.listen)
    })?;
    let limit = async {
        match arguments.limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let show = async {
        println!("Starting PostgreSQL: a primary and two replicas, in a temporary folder, on free ports.");
        let fixture = Fixture::start(listener).await?;
        if arguments.chaos {
            let outcome = chaos::walk(&fixture, arguments.json.as_deref()).await;
            fixture.stop().await;
            return outcome;
        }
        present(&fixture).await
    };
    // Everything that was started is dropped, and so removed, whichever branch ends first.
    tokio::select! {
        outcome = show => outcome?,
        () = limit => println!("\nThe time is up."),
        signal = end.asked() => println!("\n{signal}: ending."),
    }
    println!("The servers are stopped, and their folder is removed.");
    Ok(())
}

/// Compares reads with and without tokens, and shows the traffic until Ctrl-C.
///
/// It also prints what to try.
async fn present(fixture: &Fixture) -> Outcome {
    println!("{}", tokens::compare(fixture).await?);
    let url = fixture.url();
    let mut text = format!("\nThe payments service runs on {url}, on these servers:\n\n");
    for server in fixture.cluster().servers() {
        let pid = server.pid().map(|pid| pid.to_string()).unwrap_or_default();
        let _ = writeln!(text, "  {:<10} 127.0.0.1:{}   process {pid}", server.name(), server.port());
    }
    let _ = write!(
        text,
        r#"
Try, in another terminal:

  curl -s {url}/health
  curl -si {url}/accounts/1/balances/CZK         # x-served-by-node says who served it
  curl -s -X POST {url}/transactions -H 'content-type: application/json' \
    -d '{{"provider":"me","provider_id":"1","account":"7","kind":"deposit","amount":"12.50","asset":"CZK","status":"completed"}}'
  open {url} in a browser, to see the nodes

Break something: kill -9 the process of a replica, and watch the line below. Ctrl-C ends it all.

"#
    );
    print!("{text}");
    let traffic = Traffic::start(fixture, 20, 5);
    let began = Instant::now();
    let mut every_second = interval(Duration::from_secs(1));
    loop {
        every_second.tick().await;
        println!("{:>4} s  {}", began.elapsed().as_secs(), traffic.line(fixture));
    }
}
