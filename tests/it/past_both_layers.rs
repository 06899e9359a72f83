//! Effects of a `SELECT` on a read session that pass the type and the server, and privileges against them.
//!
//! The lists stand in `docs/types.md`. A PostgreSQL that refuses one of these makes a shorter list.

use diesel::dsl::sql;
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping};
use diesel::internal::derives::multiconnection::AstPassHelper;
use diesel::pg::{Pg, PgQueryBuilder};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Integer, Nullable, Text};
use pointsman::prelude::*;
use pointsman::testkit::wait::until;
use pointsman::testkit::{Cluster, Server};
use pointsman::{ReplicaSet, Role, SqlState};

use crate::support::{backend, connect, smuggle, start, start_cluster, urls_of, value};

const PRIVILEGE_MISSING: &str = "42501";

/// Evaluates an expression in a `SELECT` without `assume_read_only`.
async fn select(conn: &Conn<Read>, expression: &str) -> QueryResult<Option<String>> {
    diesel::select(sql::<Nullable<Text>>(&format!("({expression})::text"))).get_result(conn).await
}

/// The effect of an expression, and the superuser's query that shows it.
struct Deed {
    expression: String,
    question: &'static str,
    done: &'static str,
}

fn deed(expression: impl Into<String>, question: &'static str, done: &'static str) -> Deed {
    Deed { expression: expression.into(), question, done }
}

const LARGE_OBJECT: &str = "SELECT encode(lo_get(4242), 'escape')";

/// Effects that change data, in an order in which each can be done.
fn writes(primary: &Server) -> Vec<Deed> {
    let url = primary.url();
    vec![
        deed("lo_create(4711)", "SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4711", "1"),
        deed("lo_from_bytea(4712, 'x')", "SELECT encode(lo_get(4712), 'escape')", "x"),
        deed("lo_put(4242, 0, 'put')", LARGE_OBJECT, "put"),
        deed("lowrite(lo_open(4242, 131072), 'low')", LARGE_OBJECT, "low"),
        deed("lo_truncate(lo_open(4242, 131072), 1)", LARGE_OBJECT, "l"),
        deed("lo_unlink(4242)", "SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4242", "0"),
        deed(
            format!("dblink_exec('{url}', 'INSERT INTO t VALUES (2)')"),
            "SELECT count(*) FROM t WHERE n = 2",
            "1",
        ),
    ]
}

/// Effects that change no table: messages, locks, other sessions, indexes, transaction ids.
fn acts(victim: &str) -> Vec<Deed> {
    vec![
        deed("pg_notify('gossip', 'x')", "SELECT 'sent'", "sent"),
        deed("pg_logical_emit_message(true, 'a', 'b')", "SELECT 'sent'", "sent"),
        deed("pg_logical_emit_message(false, 'a', 'b')", "SELECT 'sent'", "sent"),
        deed(
            "pg_advisory_lock(7)",
            "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 7",
            "t",
        ),
        deed("pg_try_advisory_xact_lock(8)", "SELECT 'held for a moment'", "held for a moment"),
        deed("pg_current_xact_id()", "SELECT 'used up'", "used up"),
        deed("txid_current()", "SELECT 'used up'", "used up"),
        deed("pg_export_snapshot()", "SELECT 'written to a file'", "written to a file"),
        deed("brin_summarize_new_values('by_range')", "SELECT 'the index'", "the index"),
        deed("gin_clean_pending_list('by_word')", "SELECT 'the index'", "the index"),
        deed(format!("pg_cancel_backend({victim})"), "SELECT 'asked'", "asked"),
        deed(
            format!("pg_terminate_backend({victim}, 5000)"),
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'victim'",
            "0",
        ),
    ]
}

/// A primary with all objects that the expressions need, owned by the program's role.
async fn writable_fixture(replicas: usize) -> (Cluster, ReplicaSet) {
    let cluster = start_cluster(replicas).await;
    let primary = cluster.primary();
    let app: tokio_postgres::Config = primary.url().parse().unwrap();
    let password = String::from_utf8(app.get_password().unwrap().to_vec()).unwrap();
    let far = format!(
        "CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw; \
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw \
             OPTIONS (host '127.0.0.1', port '{}', dbname 'app'); \
         CREATE USER MAPPING FOR app SERVER far OPTIONS (user 'app', password '{password}'); \
         GRANT USAGE ON FOREIGN SERVER far TO app",
        primary.port()
    );
    primary.execute(&far).await.unwrap();
    let set = connect(&cluster).await;
    let conn = set.write().await.unwrap();
    for sql in [
        "CREATE TABLE t (n int)",
        "INSERT INTO t VALUES (1)",
        "CREATE SEQUENCE s",
        "CREATE FUNCTION write_it() RETURNS int LANGUAGE sql AS 'UPDATE public.t SET n = n + 100 RETURNING n'",
        "CREATE VIEW writing AS SELECT write_it() AS n",
        "CREATE FOREIGN TABLE far_writing (n int) SERVER far OPTIONS (table_name 'writing')",
        "CREATE TABLE indexed (n int, words int[])",
        "CREATE INDEX by_range ON indexed USING brin (n) WITH (pages_per_range = 1)",
        "CREATE INDEX by_word ON indexed USING gin (words)",
        "INSERT INTO indexed SELECT n, array[n] FROM generate_series(1, 2000) AS n",
        "SELECT lo_from_bytea(4242, 'old')",
    ] {
        smuggle(&conn, sql).await.unwrap();
    }
    drop(conn);
    cluster.wait_caught_up().await.unwrap();
    (cluster, set)
}

/// A session of the program's role that others may end.
async fn victim(set: &ReplicaSet) -> (Conn<Write>, String) {
    let conn = set.write().await.unwrap();
    smuggle(&conn, "SET application_name = 'victim'").await.unwrap();
    let pid = backend(&conn).await;
    (conn, pid)
}

#[tokio::test]
async fn these_writes_pass_both_layers_on_a_primary() {
    let (cluster, set) = writable_fixture(0).await;
    let primary = cluster.primary();
    let (_held, pid) = victim(&set).await;
    let conn = set.read().await.unwrap();
    assert_eq!(conn.role(), Role::Primary);
    for Deed { expression, question, done } in writes(primary).into_iter().chain(acts(&pid)) {
        select(&conn, &expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(primary.query_value(question).await.unwrap(), done, "{expression}");
    }
    // A foreign server does not know that the session only reads.
    assert_eq!(select(&conn, "SELECT max(n) FROM far_writing").await.unwrap().as_deref(), Some("101"));
    assert_eq!(primary.query_value("SELECT min(n) FROM t").await.unwrap(), "101");
    assert_eq!(value(&conn, "SELECT current_setting('transaction_read_only')").await.unwrap(), "on");
}

#[tokio::test]
async fn only_effects_outside_the_session_pass_both_layers_on_a_replica() {
    let (cluster, set) = writable_fixture(1).await;
    let primary = cluster.primary();
    let conn = set.read().await.unwrap();
    assert_eq!(conn.role(), Role::Replica);
    let other = set.read().await.unwrap();
    let pid = backend(&other).await;
    for Deed { expression, .. } in writes(primary).into_iter().chain(acts(&pid)) {
        let passes = ["dblink", "advisory", "pg_export_snapshot", "_backend"];
        let outcome = select(&conn, &expression).await;
        let expected = passes.iter().any(|name| expression.contains(name));
        assert_eq!(outcome.is_ok(), expected, "{expression}: {outcome:?}");
    }
    assert!(value(&other, "SELECT 1").await.is_err(), "another session of the role was ended");
    select(&conn, "SELECT max(n) FROM far_writing").await.unwrap();
    assert_eq!(
        primary.query_value("SELECT string_agg(n::text, ',' ORDER BY n) FROM t").await.unwrap(),
        "101,102"
    );
}

/// The statements that the page recommends, copied from it.
fn recommended() -> &'static str {
    let page = include_str!("../../docs/deployment.md");
    let (_, rest) = page.split_once("```sql\n-- Withhold").expect("the page has the statements");
    let (comment_and_sql, _) = rest.split_once("```").expect("their end");
    comment_and_sql.split_once('\n').expect("the comment's end").1
}

#[tokio::test]
async fn the_recommended_privileges_stop_each_write_that_passes_both_layers() {
    let (cluster, set) = writable_fixture(0).await;
    let primary = cluster.primary();
    primary.execute(recommended()).await.unwrap();
    // The test grants the superuser's objects to the role by name.
    primary.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM app").await.unwrap();
    primary.execute("REVOKE SELECT ON far_writing FROM app, PUBLIC").await.unwrap();
    let (held, pid) = victim(&set).await;
    let conn = set.read().await.unwrap();
    for Deed { expression, .. } in writes(primary).into_iter().chain(acts(&pid)) {
        assert!(select(&conn, &expression).await.is_err(), "{expression}");
        assert_eq!(conn.last_sqlstate().unwrap().to_string(), PRIVILEGE_MISSING, "{expression}");
    }
    assert!(select(&conn, "SELECT max(n) FROM far_writing").await.is_err());
    assert_eq!(primary.query_value("SELECT string_agg(n::text, ',') FROM t").await.unwrap(), "1");
    drop((held, conn));

    // The program needs none of them: a set connects, probes, reads, writes, resets and commits as before.
    let set = connect(&cluster).await;
    let mut conn = set.write().await.unwrap();
    let session = backend(&conn).await;
    conn.transaction(async |tx| smuggle(tx, "INSERT INTO t VALUES (3)").await).await.unwrap();
    smuggle(&conn, "SET work_mem = '8MB'").await.unwrap();
    drop(conn);
    until("the session was reset", async || {
        let conn = set.write().await.unwrap();
        backend(&conn).await == session
            && value(&conn, "SELECT current_setting('work_mem')").await.unwrap() == "4MB"
    })
    .await
    .unwrap();
    let conn = set.read().await.unwrap();
    assert_eq!(select(&conn, "SELECT count(*) FROM t").await.unwrap().as_deref(), Some("2"));
}

/// A session can be made read-write, and then its role decides.
#[tokio::test]
async fn a_role_that_may_only_select_cannot_write() {
    let (cluster, _set) = writable_fixture(0).await;
    let primary = cluster.primary();
    let role = "CREATE ROLE app_read LOGIN PASSWORD 'reader'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO app_read";
    primary.execute(role).await.unwrap();
    let url = format!("postgres://app_read:reader@127.0.0.1:{}/app", primary.port());
    let set = start(urls_of([url])).await;
    let conn = set.read().await.unwrap();
    smuggle(&conn, "SET default_transaction_read_only = off").await.unwrap();
    assert_eq!(select(&conn, "SELECT count(*) FROM t").await.unwrap().as_deref(), Some("1"));
    smuggle(&conn, "INSERT INTO t VALUES (2)").await.unwrap_err();
    assert_eq!(conn.last_sqlstate().unwrap().to_string(), PRIVILEGE_MISSING);
}

#[tokio::test]
async fn a_superusers_read_session_promotes_a_replica() {
    let cluster = start_cluster(1).await;
    let set = start(urls_of(cluster.servers().iter().map(Server::admin_url))).await;
    let conn = set.read().await.unwrap();
    assert_eq!(conn.role(), Role::Replica);
    assert_eq!(select(&conn, "pg_promote()").await.unwrap().as_deref(), Some("true"));
    assert!(!cluster.replica(0).is_in_recovery().await.unwrap());
}

/// `as_read` of a `Conn<Write>` is the same session, which may write.
#[tokio::test]
async fn as_read_of_a_write_connection_has_only_the_first_layer() {
    let (cluster, set) = writable_fixture(0).await;
    let (write, read) = (set.write().await.unwrap(), set.read().await.unwrap());
    for expression in ["nextval('s')", "write_it()"] {
        select(write.as_read(), expression).await.unwrap();
        select(&read, expression).await.unwrap_err();
        assert_eq!(read.last_sqlstate(), Some(SqlState::READ_ONLY_SQL_TRANSACTION), "{expression}");
    }
    assert_eq!(cluster.primary().query_value("SELECT n FROM t").await.unwrap(), "101");
    assert_eq!(
        cluster.primary().query_value("SELECT last_value || ':' || is_called FROM s").await.unwrap(),
        "1:true"
    );
}

/// An expression that replaces the text of its statement, by a helper that Diesel hides.
#[derive(Debug, Clone, Copy, QueryId, ValidGrouping)]
struct WholeText(&'static str);

impl Expression for WholeText {
    type SqlType = Integer;
}

impl<T> AppearsOnTable<T> for WholeText {}
impl<T> SelectableExpression<T> for WholeText {}

impl QueryFragment<Pg> for WholeText {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut out = AstPassHelper::cast_database::<Pg>(
            out,
            |binds| binds,
            |text| {
                *text = PgQueryBuilder::default();
                text
            },
            |backend| backend,
            |lookup| lookup,
        );
        out.unsafe_to_cache_prepared();
        out.push_sql(self.0);
        Ok(())
    }
}

#[tokio::test]
async fn a_query_fragment_of_the_caller_may_print_any_statement() {
    let (cluster, set) = writable_fixture(0).await;
    let conn = set.read().await.unwrap();
    // PostgreSQL treats these as harmless in a read-only transaction.
    for statement in ["LISTEN gossip", "NOTIFY gossip", "VACUUM t", "REINDEX TABLE t", "SET work_mem = '8MB'"]
    {
        let rows: Vec<i32> = diesel::select(WholeText(statement)).load(&conn).await.unwrap();
        assert!(rows.is_empty(), "{statement}");
    }
    assert_eq!(value(&conn, "SELECT pg_listening_channels()").await.unwrap(), "gossip");
    for statement in ["INSERT INTO t VALUES (2)", "TRUNCATE t", "CREATE TABLE u (n int)"] {
        let outcome: QueryResult<Vec<i32>> = diesel::select(WholeText(statement)).load(&conn).await;
        assert!(outcome.is_err(), "{statement}");
        assert_eq!(conn.last_sqlstate(), Some(SqlState::READ_ONLY_SQL_TRANSACTION), "{statement}");
    }
    assert_eq!(cluster.primary().query_value("SELECT count(*) FROM t").await.unwrap(), "1");
    // The changed settings are gone for the next user.
    let session = backend(&conn).await;
    drop(conn);
    until("the session is as new", async || {
        let conn = set.read().await.unwrap();
        backend(&conn).await != session
            || value(&conn, "SELECT count(*) FROM pg_listening_channels()").await.unwrap() == "0"
    })
    .await
    .unwrap();
}
