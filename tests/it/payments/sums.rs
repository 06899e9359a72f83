//! Balances and totals.

use chrono::NaiveDate;
use diesel::sql_types::{BigInt, Text};
use pointsman::payments::{AccountId, Balance, Error, PageSize, Status, TransactionRepository};
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::{Role, assume_read_only};
use tokio::task::JoinSet;

use super::{Fixture, account, asset, completed, record};

fn balance(text: &str) -> Balance {
    text.parse().expect("a balance")
}

#[tokio::test]
async fn only_completed_transactions_count_in_sums() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let (of, czk) = (account("576"), asset("CZK"));
    assert_eq!(conn.balance(&of, &czk).await.unwrap(), Balance::default());
    record(&conn, completed("1", "576", "10.50", "CZK")).await;
    record(&conn, completed("2", "576", "-12.75", "CZK")).await;
    assert_eq!(conn.balance(&of, &czk).await.unwrap(), balance("-2.25"), "an account can be overdrawn");
    for (id, status) in [("3", Status::Pending), ("4", Status::Processing), ("5", Status::Failed)] {
        record(&conn, completed(id, "576", "100", "CZK").with_status(status)).await;
    }
    assert_eq!(conn.balance(&of, &czk).await.unwrap(), balance("-2.25"));
    let refunded = record(&conn, completed("6", "576", "7", "CZK")).await;
    assert_eq!(conn.balance(&of, &czk).await.unwrap(), balance("4.75"));
    conn.advance_transaction(refunded.id, Status::Refunded, &"clerk".parse().unwrap()).await.unwrap();
    assert_eq!(conn.balance(&of, &czk).await.unwrap(), balance("-2.25"));
}

#[tokio::test]
async fn sums_are_exact_and_may_be_larger_than_any_amount() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    let largest = "99999999999999999999.999999999999999999";
    for i in 0..11 {
        record(&conn, completed(&format!("{i}"), "576", largest, "ETH")).await;
    }
    record(&conn, completed("small", "576", "-0.000000000000000001", "ETH")).await;
    let sum = conn.balance(&account("576"), &asset("ETH")).await.unwrap();
    assert_eq!(sum.to_string(), "1099999999999999999999.999999999999999988");
}

#[tokio::test]
async fn balances_are_by_asset_and_by_account() {
    let fixture = Fixture::start_with(Cluster::builder().replicas(1)).await;
    let conn = fixture.write().await;
    // The order of the accounts is that of their bytes, whatever the language of the database.
    for (i, of) in ["b", "a", "B", "10", "9"].iter().enumerate() {
        record(&conn, completed(&format!("d{i}"), of, &format!("{}", i + 1), "CZK")).await;
        record(&conn, completed(&format!("w{i}"), of, "-0.5", "CZK")).await;
    }
    record(&conn, completed("e", "a", "3", "EUR")).await;
    record(&conn, completed("f", "c", "3", "CZK").with_status(Status::Failed)).await;
    fixture.cluster.wait_caught_up().await.expect("a replica that has it all");

    let conn = fixture.set.read().await.expect("a read connection");
    assert_eq!(conn.role(), Role::Replica);
    let of_a = conn.balances(&account("a")).await.unwrap();
    assert_eq!(of_a, [(asset("CZK"), balance("1.5")), (asset("EUR"), balance("3"))]);

    let (mut all, mut after): (Vec<(AccountId, Balance)>, _) = (Vec::new(), None);
    let size = PageSize::new(2);
    loop {
        let some = conn.last_balances(&asset("CZK"), after.as_ref(), size).await.unwrap();
        let last = some.last().map(|(of, _)| of.clone());
        let done = some.len() < size.items();
        all.extend(some);
        if done {
            break;
        }
        after = last;
    }
    let expected = [("10", "3.5"), ("9", "4.5"), ("B", "2.5"), ("a", "1.5"), ("b", "0.5")];
    assert_eq!(all, expected.map(|(of, sum)| (account(of), balance(sum))));
}

#[tokio::test]
async fn totals_are_by_day_in_utc_whatever_the_session_says() {
    let fixture = Fixture::start_with(Cluster::builder().setting("timezone", "Pacific/Kiritimati")).await;
    let conn = fixture.write().await;
    for (id, amount, time) in [
        ("1", "1", "2024-02-28T23:59:59.999999Z"),
        ("2", "10", "2024-02-29T00:00:00Z"),
        ("3", "-2.5", "2024-02-29T23:59:59.999999Z"),
        ("4", "100", "2024-03-01T00:00:00Z"),
        ("5", "1000", "2024-03-02T00:00:00Z"),
    ] {
        record(&conn, completed(id, "576", amount, "CZK").with_occurred_at(time.parse().unwrap())).await;
    }
    record(
        &conn,
        completed("6", "576", "1", "EUR").with_occurred_at("2024-02-29T12:00:00Z".parse().unwrap()),
    )
    .await;
    let day = |text: &str| -> NaiveDate { text.parse().unwrap() };
    let totals = conn.totals_per_day(&asset("CZK"), day("2024-02-29"), day("2024-03-01")).await.unwrap();
    let totals: Vec<_> = totals
        .iter()
        .map(|total| (total.day, total.deposits.to_string(), total.withdrawals.to_string(), total.count))
        .collect();
    assert_eq!(
        totals,
        [
            (day("2024-02-29"), "10".to_owned(), "2.5".to_owned(), 2),
            (day("2024-03-01"), "100".to_owned(), "0".to_owned(), 1),
        ]
    );
    let all = conn.totals_per_day(&asset("CZK"), NaiveDate::MIN, NaiveDate::MAX).await.unwrap();
    assert_eq!(all.len(), 4);
}

/// A balance summed all transactions of its account each time, which took 50 ms with 300,000 of them.
#[tokio::test]
async fn a_balance_reads_one_row_however_many_transactions_there_are() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    let fill = "INSERT INTO transactions (id, account, amount, asset, kind, status, provider, provider_id, occurred_at) \
                SELECT gen_random_uuid(), (n % 2)::text, 1, 'CZK', 'deposit', 'completed', 'fill', n::text, now() \
                FROM generate_series(1, 20000) n";
    diesel::sql_query(fill).execute(&conn).await.expect("many transactions");
    fixture.cluster.primary().execute("VACUUM ANALYZE account_balances").await.expect("statistics");

    // A separate session, so that the counts of its transaction are those of this statement.
    let mut conn = fixture.set.read().await.expect("a read connection");
    let seen: Vec<Seen> = conn
        .transaction(async |tx| {
            // The table has two rows, so the server would rather scan it.
            assume_read_only(diesel::sql_query("SET LOCAL enable_seqscan = off")).execute(tx).await?;
            assert_eq!(tx.balance(&account("1"), &asset("CZK")).await?, balance("10000"));
            let seen = "SELECT relname::text AS table, seq_tup_read + idx_tup_fetch AS rows \
                        FROM pg_stat_xact_user_tables WHERE seq_tup_read + idx_tup_fetch > 0";
            Ok::<_, Error>(assume_read_only(diesel::sql_query(seen)).load(tx).await?)
        })
        .await
        .expect("counts");
    assert_eq!(seen, [Seen { table: "account_balances".to_owned(), rows: 1 }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_balance_is_the_sum_under_concurrency() {
    let fixture = Fixture::start().await;
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let mut conn = fixture.write().await;
        tasks.spawn(async move {
            for i in 0..30 {
                // Few accounts, so that the tasks meet at each of them.
                let (id, of) = (format!("{task}-{i}"), format!("{}", i % 3));
                let amount = format!("{}{}.{i:02}1", if i % 4 == 0 { "-" } else { "" }, task + 1);
                let new = completed(&id, &of, &amount, "CZK").with_status(Status::ALL[i % 4]);
                let recorded = conn.record_transaction(&new).await.expect("a new transaction");
                let next = Status::ALL.iter().find(|next| recorded.status.may_become(**next));
                if let Some(next) = next {
                    let clerk = "clerk".parse().expect("an actor");
                    conn.advance_transaction(recorded.id, *next, &clerk).await.expect("an open way");
                }
            }
        });
    }
    tasks.join_all().await;
    assert_running_balances_are_sums(&fixture, 3).await;

    // Other programs may do what this one does not.
    let primary = fixture.cluster.primary();
    for statement in [
        "UPDATE transactions SET account = 'moved', amount = amount * 3 WHERE account = '1'",
        "UPDATE transactions SET asset = 'EUR' WHERE account = '2' AND kind = 'deposit'",
        "DELETE FROM transactions WHERE kind = 'withdrawal' AND status <> 'failed'",
    ] {
        primary.execute(statement).await.expect("a change");
        assert_running_balances_are_sums(&fixture, 3).await;
    }
    primary.execute("TRUNCATE transactions CASCADE").await.expect("an empty table");
    assert_eq!(fixture.count("SELECT count(*) FROM account_balances").await, 0);
}

async fn assert_running_balances_are_sums(fixture: &Fixture, at_least: i64) {
    let summed = "SELECT account, asset, sum(CASE kind WHEN 'deposit' THEN amount ELSE -amount END) AS balance \
                  FROM transactions WHERE status = 'completed' GROUP BY account, asset";
    let differ = format!(
        "SELECT count(*) FROM ({summed}) s FULL JOIN account_balances b USING (account, asset) \
         WHERE coalesce(s.balance, 0) IS DISTINCT FROM b.balance"
    );
    assert_eq!(fixture.count(&differ).await, 0);
    let moving = "SELECT count(*) FROM account_balances WHERE balance <> 0";
    assert!(fixture.count(moving).await >= at_least, "there is something to compare");
}

/// The rows of a table that a transaction has read.
#[derive(Debug, PartialEq, Eq, QueryableByName)]
struct Seen {
    #[diesel(sql_type = Text)]
    table: String,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}
