//! Chooses among a name's addresses for a connection.
//!
//! A name can have several addresses, and one of them may drop packets: a removed host, a network without a route back,
//! IPv6 without connectivity. Tried one after the other, such an address uses up the whole limit. So attempts are
//! staggered, as RFC 8305 ("Happy Eyeballs") advises. The next one starts after a quarter of a second, or at once when
//! one fails, and the first that connects wins.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// Wait for an address before the next one is tried too (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Puts the address that worked last first, and alternates the families.
pub(super) fn order(
    resolved: impl IntoIterator<Item = SocketAddr>,
    worked: Option<SocketAddr>,
) -> Vec<SocketAddr> {
    let mut left = Vec::new();
    for address in resolved {
        if !left.contains(&address) {
            left.push(address);
        }
    }
    let mut ordered: Vec<SocketAddr> = Vec::with_capacity(left.len());
    // If the name no longer has the address, it leads to another server on purpose.
    let mut next = worked.and_then(|worked| left.iter().position(|address| *address == worked)).unwrap_or(0);
    while !left.is_empty() {
        let address = left.remove(next);
        next = left.iter().position(|other| other.is_ipv4() != address.is_ipv4()).unwrap_or(0);
        ordered.push(address);
    }
    ordered
}

/// Connects to the first address that answers.
///
/// # Errors
///
/// The last address's error, if all fail; [`NotFound`](io::ErrorKind::NotFound) without an address.
///
/// # Cancel safety
///
/// A dropped future closes all attempts, also those that lost the race.
pub(super) async fn first_of<T, F, Fut>(addresses: &[SocketAddr], connect: F) -> io::Result<(T, SocketAddr)>
where
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = io::Result<T>>,
{
    let mut left = addresses.iter().copied();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let attempt = |address| {
        let attempt = connect(address);
        async move { (attempt.await, address) }
    };
    loop {
        let started = left.next();
        if let Some(address) = started {
            attempts.push(attempt(address));
        }
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some((Ok(connected), address)) => return Ok((connected, address)),
                Some((Err(error), _)) => last = error,
                None => return Err(last),
            },
            () = sleep(STAGGER), if left.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Mutex;

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpStream;
    use tokio::time::{Instant, timeout};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_alternate_behind_the_address_that_worked_last() {
        let [a, b, c] = ["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"].map(address);
        assert_eq!(order([a, b, c, a], None), [a, c, b]);
        assert_eq!(order([a, b, c], Some(c)), [c, a, b]);
        assert_eq!(order([a, b], Some(c)), [a, b], "it is an address of the name no more");
        assert!(order([], Some(a)).is_empty());
    }

    /// Connects or fails after the planned milliseconds, and records the start of each attempt.
    async fn race(plan: &[(u64, bool)]) -> (io::Result<SocketAddr>, Vec<u64>, u64) {
        let addresses: Vec<_> = (1..).zip(plan).map(|(n, _)| SocketAddr::from(([10, 0, 0, n], 1))).collect();
        let (began, starts) = (Instant::now(), Mutex::new(Vec::new()));
        let millis = || u64::try_from(began.elapsed().as_millis()).expect("short");
        let outcome = first_of(&addresses, |address| {
            let index = addresses.iter().position(|other| *other == address).expect("one of them");
            starts.lock().expect("no panic").push(millis());
            async move {
                let (takes, connects) = plan[index];
                sleep(Duration::from_millis(takes)).await;
                if connects { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        })
        .await;
        let starts = starts.lock().expect("no panic").clone();
        (outcome.map(|((), address)| address), starts, millis())
    }

    const NEVER: u64 = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn the_next_address_starts_when_one_is_slow_and_at_once_when_one_fails() {
        let (outcome, starts, took) = race(&[(NEVER, true), (30, false), (20, true)]).await;
        assert_eq!(outcome.expect("the third").to_string(), "10.0.0.3:1");
        assert_eq!((starts, took), (vec![0, 250, 280], 300));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_connect_wins_though_it_began_first_and_was_slow() {
        let (outcome, starts, took) = race(&[(300, true), (NEVER, true)]).await;
        assert_eq!(outcome.expect("the first").to_string(), "10.0.0.1:1");
        assert_eq!((starts, took), (vec![0, 250], 300));
    }

    #[tokio::test(start_paused = true)]
    async fn with_all_refused_the_answer_comes_at_once() {
        let (outcome, starts, took) = race(&[(1, false), (1, false)]).await;
        assert_eq!(outcome.expect_err("none").kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!((starts, took), (vec![0, 1], 2));
        assert_eq!(race(&[]).await.0.expect_err("none").kind(), io::ErrorKind::NotFound);
    }

    /// A name with two addresses, the first of which drops packets, was never reached.
    ///
    /// The first address used up the limit of both.
    #[tokio::test]
    async fn an_address_that_drops_packets_does_not_hide_the_one_that_answers() {
        let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        deaf.bind(&address("127.0.0.1:0").into()).expect("a port");
        deaf.listen(0).expect("a listener");
        let deaf_address =
            deaf.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        // The kernel drops packets to a listener whose queue is full.
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(deaf_address)).await
        {
            queued.push(connected.expect("a place in the queue"));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let good = listener.local_addr().expect("an address");
        let both = [deaf_address, good];
        let one_after_the_other = timeout(Duration::from_millis(800), TcpStream::connect(&both[..])).await;
        assert!(one_after_the_other.is_err(), "the first one drops packets");
        let staggered = timeout(Duration::from_secs(10), first_of(&both, TcpStream::connect)).await;
        assert_eq!(staggered.expect("in time").expect("the second one").1, good);
    }
}
