//! The rows of statements that only Pointsman's adapters let run on a `Conn<Read>`, and of owned streams.

use diesel::dsl::exists;
use diesel::sql_types::Integer;
use futures_util::{StreamExt, TryStreamExt};
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::until;
use pointsman::{LoadQuery, ReplicaSet, Role, assume_read_only};

use crate::support::{backend, fixture_with, in_use, pools_of, value};

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
    }
}

diesel::table! {
    guests (id) {
        id -> Integer,
        user_id -> Integer,
    }
}

diesel::allow_tables_to_appear_in_same_query!(users, guests);

/// The users 1, 2, 3; the guests have the users 2, 3, 3, 4.
const SCHEMA: &str = "\
    CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL); \
    INSERT INTO users VALUES (1, 'a'), (2, 'b'), (3, 'c'); \
    CREATE TABLE guests (id int PRIMARY KEY, user_id int NOT NULL); \
    INSERT INTO guests VALUES (1, 2), (2, 3), (3, 3), (4, 4);";

async fn fixture() -> (Cluster, ReplicaSet) {
    fixture_with(1, SCHEMA, |config| config.pool(pools_of(1))).await
}

/// A function that is generic over the query.
async fn sorted<Q>(query: Q, conn: &Conn<Read>) -> Vec<i32>
where
    Q: LoadQuery<i32, Query: ReadOnly>,
{
    let mut rows: Vec<i32> = query.load(conn).await.unwrap();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn each_set_operation_has_its_rows_on_a_replica() {
    let (_cluster, set) = fixture().await;
    let conn = set.read().await.unwrap();
    assert_eq!(conn.role(), Role::Replica);
    let (users, guests) = (users::table.select(users::id), guests::table.select(guests::user_id));
    assert_eq!(sorted(users.union(guests), &conn).await, [1, 2, 3, 4]);
    assert_eq!(sorted(users.union_all(guests), &conn).await, [1, 2, 2, 3, 3, 3, 4]);
    assert_eq!(sorted(users.intersect(guests), &conn).await, [2, 3]);
    assert_eq!(sorted(guests.intersect_all(guests), &conn).await, [2, 3, 3, 4]);
    assert_eq!(sorted(guests.except(users), &conn).await, [4]);
    assert_eq!(sorted(guests.except_all(users), &conn).await, [3, 4]);
    // Each combination is one side of the next, in parentheses.
    assert_eq!(sorted(users.except(guests.union(users)), &conn).await, [0; 0]);
    assert_eq!(sorted(users.except(guests).union(users), &conn).await, [1, 2, 3]);
    let boxed = users.into_boxed().intersect(guests.filter(guests::user_id.gt(2)).into_boxed());
    assert_eq!(sorted(boxed, &conn).await, [3]);
}

#[tokio::test]
async fn the_clauses_of_a_set_operation_apply_to_its_result() {
    let (_cluster, set) = fixture().await;
    let conn = set.read().await.unwrap();
    let (users, guests) = (users::table.select(users::id), guests::table.select(guests::user_id));
    let both = users.union(guests);
    let page: Vec<i32> = both.positional_order_by(1).limit(2).offset(1).load(&conn).await.unwrap();
    assert_eq!(page, [2, 3]);
    assert_eq!(both.positional_order_by(1).first::<i32>(&conn).await.unwrap(), 1);
    // A limit of one side stays with that side.
    let one = guests.except(users).union(users).limit(1);
    assert_eq!(sorted(one.union_all(guests.filter(guests::user_id.eq(2))), &conn).await.len(), 2);
}

#[tokio::test]
async fn a_set_operation_is_a_part_of_other_statements() {
    let (cluster, set) = fixture().await;
    let conn = set.read().await.unwrap();
    let (ids, guests) = (users::table.select(users::id), guests::table.select(guests::user_id));
    let low = ids.filter(users::id.eq(1)).union(ids.filter(users::id.eq(2)));
    let of_low = guests::table.filter(guests::user_id.eq_any(low)).select(guests::id);
    assert_eq!(sorted(of_low, &conn).await, [1]);
    let of_others = guests::table.filter(guests::user_id.ne_all(low)).select(guests::id);
    assert_eq!(sorted(of_others, &conn).await, [2, 3, 4]);
    let any = exists(guests.except(ids).into_subselect());
    assert!(diesel::select(any).get_result::<bool>(&conn).await.unwrap());
    let least = guests.except(ids).into_subselect().single_value();
    assert_eq!(diesel::select(least).get_result::<Option<i32>>(&conn).await.unwrap(), Some(4));

    let writer = set.write().await.unwrap();
    let higher = users::table.select((users::id + 10, users::name));
    let rows = higher.union(users::table.select((users::id + 20, users::name)));
    let inserted = diesel::insert_into(users::table).values(rows).into_columns((users::id, users::name));
    assert_eq!(inserted.execute(&writer).await.unwrap(), 6);
    let sum = cluster.primary().query_value("SELECT sum(id) FROM users WHERE id > 10").await.unwrap();
    assert_eq!(sum, "102");
}

#[tokio::test]
async fn first_limits_a_statement_that_was_assumed_to_read() {
    let (_cluster, set) = fixture().await;
    let conn = set.read().await.unwrap();
    let ids = users::table.select(users::id).order(users::id.desc());
    assert_eq!(assume_read_only(ids).first::<i32>(&conn).await.unwrap(), 3);
    assert_eq!(assume_read_only(ids.into_boxed()).first::<i32>(&conn).await.unwrap(), 3);
    let none = assume_read_only(ids.filter(users::id.gt(9))).first::<i32>(&conn).await.optional();
    assert_eq!(none.unwrap(), None);
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    n: i32,
}

/// The rows from 1 to `last`, as a stream that owns its connection.
async fn rows(
    set: &ReplicaSet,
    last: i32,
) -> impl futures_util::Stream<Item = QueryResult<i32>> + Send + Unpin {
    let sql = format!("SELECT 6 / (1 - n / 7) AS six, n FROM generate_series(1, {last}) AS n");
    let conn = set.read().await.unwrap();
    assume_read_only(diesel::sql_query(sql)).into_stream::<Row>(conn).map_ok(|row| row.n)
}

#[tokio::test]
async fn an_owned_stream_keeps_its_connection_until_its_last_row() {
    let (_cluster, set) = fixture().await;
    let conn = set.read().await.unwrap();
    let session = backend(&conn).await;
    drop(conn);
    let mut rows = rows(&set, 3).await;
    assert_eq!(rows.try_next().await.unwrap(), Some(1));
    assert_eq!(in_use(&set), 1);
    assert_eq!(rows.by_ref().try_collect::<Vec<_>>().await.unwrap(), [2, 3]);
    assert_eq!(in_use(&set), 0, "it was returned at the end, although the stream still exists");
    assert_eq!(backend(&set.read().await.unwrap()).await, session);
    drop(rows);
}

#[tokio::test]
async fn an_owned_stream_that_is_dropped_half_way_reaches_no_next_user() {
    let (_cluster, set) = fixture().await;
    for taken in 0..3 {
        let mut rows = assume_read_only(diesel::sql_query("SELECT n FROM generate_series(1, 1000000) AS n"))
            .into_stream::<Row>(set.read().await.unwrap());
        for n in 1..=taken {
            assert_eq!(rows.next().await.unwrap().unwrap().n, n);
        }
        drop(rows);
        assert_eq!(value(&set.read().await.unwrap(), "SELECT 'mine'").await.unwrap(), "mine");
    }
    until("all went back", async || in_use(&set) == 0).await.unwrap();
}

#[tokio::test]
async fn an_owned_stream_yields_the_error_and_ends() {
    let (_cluster, set) = fixture().await;
    // The seventh row divides by zero.
    let mut rows = rows(&set, 9).await;
    let mut seen = 0;
    let error = loop {
        match rows.next().await.expect("an error before the end") {
            Ok(n) => seen = n,
            Err(error) => break error,
        }
    };
    assert_eq!(seen, 6, "{error}");
    assert!(error.to_string().contains("division by zero"), "{error}");
    drop(rows);
    let conn = set.read().await.unwrap();
    assert_eq!(conn.last_sqlstate(), None);
    assert_eq!(value(&conn, "SELECT 1").await.unwrap(), "1");
}
