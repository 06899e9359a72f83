//! Limits of the service, and the assets that it accepts.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::payments::Asset;

/// Limits of the service, and the assets that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time limit of one request, including the reading of its body.
    pub request_timeout: Duration,
    /// Time limit for the head of a request, and for a connection without one.
    pub head_timeout: Duration,
    /// Time limit for the body of a request.
    pub body_timeout: Duration,
    /// Maximum bytes of a body.
    pub body_limit: usize,
    /// Maximum number of open connections.
    ///
    /// Three quarters of the open files that the process may have are a limit as well.
    pub max_connections: usize,
    /// Time limit for the requests in flight when the service ends.
    pub drain_timeout: Duration,
    /// The assets that are accepted; a transaction of any other one is refused.
    pub assets: BTreeSet<Asset>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // More than a write waits for a new primary (`writes.failover_wait`, 45 s) and for a connection to it
            // (`timeouts.checkout`, 5 s): their error says more than a bare "timeout". Less than the 60 s after which
            // proxies give up.
            request_timeout: Duration::from_secs(55),
            // More than a slow phone needs, and so few that half-sent heads do not pile up.
            head_timeout: Duration::from_secs(15),
            // A body has at most `body_limit` bytes, so it needs no more time than a head.
            body_timeout: Duration::from_secs(15),
            // A callback is some hundred bytes; this leaves room for its metadata.
            body_limit: 64 * 1024,
            // A common limit of open files, which is what a connection costs.
            max_connections: 1024,
            // Kubernetes grants 30 s in all. A request that waits longer for a primary is cut off, with nothing sent.
            drain_timeout: Duration::from_secs(20),
            assets: KNOWN_ASSETS.split_whitespace().filter_map(|asset| Asset::new(asset).ok()).collect(),
        }
    }
}

/// The assets accepted by default: currencies of ISO 4217, and some tokens.
///
/// A misspelt asset would otherwise start a separate balance that stays unnoticed.
pub const KNOWN_ASSETS: &str = "\
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF \
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL \
    HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD \
    MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG \
    QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD \
    TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG \
    ADA BNB BTC DAI DOGE DOT ETH EURC LTC POL SOL TRX USDC USDT XLM XMR XRP";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TimeoutSettings, WriteSettings};

    /// A failover took 30 s with Patroni's defaults, and a third of the writes failed, because they waited for 10 s.
    #[test]
    fn a_write_outlives_a_failover_by_patroni_and_a_request_outlives_the_write() {
        let (ttl, loop_wait, promotion) =
            (Duration::from_secs(30), Duration::from_secs(10), Duration::from_secs(5));
        let (writes, timeouts) = (WriteSettings::default(), TimeoutSettings::default());
        assert!(writes.failover_wait >= ttl + loop_wait + promotion);
        assert!(u64::from(writes.max_waiters) >= 100 * writes.failover_wait.as_secs());
        let request = Settings::default().request_timeout;
        assert!(request > writes.failover_wait + timeouts.checkout && request < Duration::from_secs(60));
    }

    #[test]
    fn every_known_asset_is_one() {
        assert_eq!(Settings::default().assets.len(), KNOWN_ASSETS.split_whitespace().count());
    }
}
