//! The configuration of a Patroni member, as JSON, which is YAML too.

use std::path::Path;

use serde_json::{Value, json};

/// Patroni's cycle and timeouts in seconds.
///
/// `loop_wait` and `retry_timeout` are the smallest that Patroni's documentation allows. `ttl` is the smallest that
/// leaves room for them (`loop_wait + 2 * retry_timeout`); versions from 3.2 on raise it to 20.
pub(super) const TTL: u64 = 7;
const LOOP_WAIT: u64 = 1;
pub(super) const RETRY_TIMEOUT: u64 = 3;

/// The ports of a member, and the cluster's secrets.
pub(super) struct Member<'m> {
    pub(super) name: &'m str,
    pub(super) port: u16,
    pub(super) rest_port: u16,
    pub(super) etcd_port: u16,
    pub(super) password: &'m str,
}

impl Member<'_> {
    /// Returns the configuration of a member that runs in `place`.
    pub(super) fn render(&self, place: &Path, server_programs: &Path) -> String {
        let Self { name, port, rest_port, etcd_port, password } = self;
        let (address, rest) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{rest_port}"));
        let user = |name: &str| json!({ "username": name, "password": password });
        json!({
            "scope": "pointsman",
            "name": name,
            "restapi": { "listen": rest, "connect_address": rest },
            // Not `etcd3`: before 3.0.3, a leader that wakes up overwrites its successor's key there, and what the
            // successor acknowledged is lost (Patroni's pull request 2689). Debian 12 has 3.0.2.
            "etcd": { "host": format!("127.0.0.1:{etcd_port}") },
            "bootstrap": {
                "dcs": dcs(),
                "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums"],
            },
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "data_dir": place.join("data"),
                "bin_dir": server_programs,
                "pgpass": place.join("pgpass"),
                "authentication": {
                    "superuser": user("postgres"),
                    "replication": user("replicator"),
                    "rewind": user("rewinder"),
                },
                "parameters": { "unix_socket_directories": place },
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication replicator 127.0.0.1/32 scram-sha-256",
                ],
            },
        })
        .to_string()
    }
}

/// Returns the settings that the members share.
fn dcs() -> Value {
    json!({
        "ttl": TTL,
        "loop_wait": LOOP_WAIT,
        "retry_timeout": RETRY_TIMEOUT,
        // Each acknowledged write is on the standby that may be promoted.
        "synchronous_mode": true,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "remove_data_directory_on_rewind_failure": true,
            "remove_data_directory_on_diverged_timelines": true,
            // As in the test kit: nothing has to survive a power failure.
            "parameters": {
                "fsync": "off",
                "wal_init_zero": "off",
                "shared_buffers": "16MB",
                "max_connections": 100,
                "wal_keep_size": "512MB",
                "dynamic_shared_memory_type": "mmap",
                "jit": "off",
            },
        },
    })
}
