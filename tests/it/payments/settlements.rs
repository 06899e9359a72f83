//! Settlements: each transaction once, however many settle at the same time.

use std::collections::HashSet;
use std::time::Duration;

use diesel::sql_types::Text;
use pointsman::payments::{
    Action, Actor, AuditFilter, AuditRepository, Balance, Entity, Error, PageRequest, Settlement,
    SettlementRepository, SettlementStatus, Settling, Status, TransactionFilter, TransactionRepository,
};
use pointsman::prelude::*;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Fixture, asset, completed, record};

fn settling(what: &str) -> Settling {
    Settling::new(asset(what), clerk())
}

fn clerk() -> Actor {
    "clerk".parse().expect("an actor")
}

#[tokio::test]
async fn a_settlement_sums_and_marks_transactions_and_is_in_the_audit_log() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let at = |text: &str| text.parse().unwrap();
    let (first, last) = ("2024-01-01T08:00:00Z", "2024-01-03T08:00:00Z");
    record(&conn, completed("1", "576", "10.25", "CZK").with_occurred_at(at(first))).await;
    record(&conn, completed("2", "704", "-0.5", "CZK").with_occurred_at(at(last))).await;
    record(&conn, completed("3", "704", "99", "EUR")).await;
    record(&conn, completed("4", "704", "99", "CZK").with_status(Status::Pending)).await;

    let settlement = conn.settle(&settling("CZK")).await.unwrap().expect("there is something to settle");
    assert_eq!((settlement.total.to_string().as_str(), settlement.transaction_count), ("9.75", 2));
    assert_eq!((settlement.period_start, settlement.period_end), (at(first), at(last)));
    assert_eq!((settlement.status, settlement.paid_at), (SettlementStatus::Open, None));
    assert_eq!(conn.find_settlement(settlement.id).await.unwrap(), Some(settlement.clone()));
    assert_eq!(conn.settle(&settling("CZK")).await.unwrap(), None, "nothing is left");

    let filter = TransactionFilter { settlement: Some(settlement.id), ..Default::default() };
    assert_eq!(conn.list_transactions(&filter, PageRequest::default()).await.unwrap().items.len(), 2);
    let filter = AuditFilter { entity: Some(Entity::Settlement), entity_id: Some(settlement.id) };
    let log = conn.list_audit(&filter, PageRequest::default()).await.unwrap().items;
    assert_eq!(log.len(), 1);
    assert_eq!((log[0].action, &log[0].actor), (Action::Settled, &clerk()));
    let details = serde_json::json!({"asset": "CZK", "total": "9.75", "transactions": 2});
    assert_eq!(log[0].details, Some(details));
}

#[tokio::test]
async fn the_oldest_come_first_up_to_a_number_and_a_time() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    for day in 1..=5 {
        let time = format!("2024-01-0{day}T00:00:00Z").parse().unwrap();
        let amount = format!("{}", 10_u32.pow(day));
        record(&conn, completed(&format!("{day}"), "576", &amount, "CZK").with_occurred_at(time)).await;
    }
    let totals = |settled: Option<Settlement>| settled.map(|settlement| settlement.total.to_string());
    let until_4 = settling("CZK").up_to("2024-01-04T00:00:00Z".parse().unwrap());
    assert_eq!(totals(conn.settle(&until_4.clone().at_most(3)).await.unwrap()), Some("1110".into()));
    assert_eq!(totals(conn.settle(&until_4).await.unwrap()), Some("10000".into()));
    assert_eq!(totals(conn.settle(&until_4).await.unwrap()), None);
    assert_eq!(totals(conn.settle(&settling("CZK").at_most(0)).await.unwrap()), None);
    assert_eq!(totals(conn.settle(&settling("CZK")).await.unwrap()), Some("100000".into()));
}

#[tokio::test]
async fn a_settlement_is_paid_once() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    record(&conn, completed("1", "576", "5", "CZK")).await;
    let settlement = conn.settle(&settling("CZK")).await.unwrap().unwrap();
    let paid = conn.mark_settlement_paid(settlement.id, &clerk()).await.unwrap();
    assert_eq!(paid.status, SettlementStatus::Paid);
    assert!(paid.paid_at.is_some());
    assert_eq!(conn.mark_settlement_paid(settlement.id, &clerk()).await.unwrap(), paid);
    assert_eq!(fixture.count("SELECT count(*) FROM audit_log WHERE action = 'paid'").await, 1);
    let error = conn.mark_settlement_paid(Uuid::nil(), &clerk()).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { entity: Entity::Settlement, .. }), "{error:?}");
}

#[tokio::test]
async fn a_locked_transaction_is_skipped_and_settled_later() {
    let fixture = Fixture::start().await;
    let locked = record(&fixture.write().await, completed("1", "576", "1", "CZK")).await.id;
    record(&fixture.write().await, completed("2", "576", "10", "CZK")).await;
    let mut other = fixture.write().await;
    let settled: Settlement = other
        .transaction(async |tx| {
            let lock = format!("SELECT id FROM transactions WHERE id = '{locked}' FOR UPDATE");
            diesel::sql_query(lock).execute(tx).await?;
            // If locked rows were not skipped, this would wait for this very transaction.
            let (mut conn, settling) = (fixture.write().await, settling("CZK"));
            let settlement = tokio::time::timeout(Duration::from_secs(10), conn.settle(&settling));
            let settlement = settlement.await.expect("it waits for no lock")?;
            Ok::<_, Error>(settlement.expect("the other one"))
        })
        .await
        .unwrap();
    assert_eq!(settled.total.to_string(), "10");
    let settled = other.settle(&settling("CZK")).await.unwrap().unwrap();
    assert_eq!(settled.total.to_string(), "1");
}

#[tokio::test]
async fn a_settlement_that_fails_at_its_end_is_rolled_back() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    record(&conn, completed("1", "576", "5", "CZK")).await;
    // The audit entry is the last write; now it must fail.
    let refuse = "ALTER TABLE audit_log ADD CONSTRAINT closed CHECK (action <> 'settled')";
    diesel::sql_query(refuse).execute(&conn).await.unwrap();
    let error = conn.settle(&settling("CZK")).await.unwrap_err();
    assert!(matches!(error, Error::Query(_)), "{error:?}");
    assert_eq!(fixture.count("SELECT count(*) FROM settlements").await, 0);
    assert_eq!(fixture.count("SELECT count(*) FROM transactions WHERE settlement_id IS NOT NULL").await, 0);
    diesel::sql_query("ALTER TABLE audit_log DROP CONSTRAINT closed").execute(&conn).await.unwrap();
    assert!(conn.settle(&settling("CZK")).await.unwrap().is_some(), "the connection is as good as before");
}

/// Records transactions of two assets, some of them withdrawals; returns their number.
async fn fill(conn: &Conn<Write>, from: u32, to: u32) {
    let fill = "INSERT INTO transactions (id, account, amount, asset, kind, status, provider, provider_id, occurred_at) \
                SELECT gen_random_uuid(), (n % 50)::text, n * 0.01, \
                CASE WHEN n % 7 = 0 THEN 'EUR' ELSE 'CZK' END, \
                CASE WHEN n % 3 = 0 THEN 'withdrawal' ELSE 'deposit' END, 'completed', 'fill', n::text, \
                now() - n * interval '1 second' FROM generate_series($1::int, $2::int) n";
    diesel::sql_query(fill)
        .bind::<diesel::sql_types::Integer, _>(from as i32)
        .bind::<diesel::sql_types::Integer, _>(to as i32)
        .execute(conn)
        .await
        .expect("many transactions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_settlements_never_settle_a_transaction_twice() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    // At the server, past the code under test: a trigger records every transaction that is settled again.
    for sql in [
        "CREATE TABLE settled_again (id uuid)",
        "CREATE FUNCTION settled_again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO settled_again VALUES (OLD.id); RETURN NEW; END $$",
        "CREATE TRIGGER settled_again AFTER UPDATE OF settlement_id ON transactions FOR EACH ROW \
         WHEN (OLD.settlement_id IS NOT NULL) EXECUTE FUNCTION settled_again()",
    ] {
        diesel::sql_query(sql).execute(&conn).await.unwrap();
    }
    fill(&conn, 1, 3000).await;
    drop(conn);

    let mut tasks = JoinSet::new();
    for worker in 0..8_u32 {
        let set = fixture.set.clone();
        tasks.spawn(async move {
            let mut settled = Vec::new();
            let mut nothing = 0;
            // "Nothing" may mean that others hold all that is left, so the test asks a few times.
            while nothing < 5 {
                let mut conn = set.write().await.expect("the primary");
                let what = if worker % 4 == 3 { "EUR" } else { "CZK" };
                match conn.settle(&settling(what).at_most(17 + worker)).await.expect("a settlement") {
                    Some(settlement) => settled.push(settlement),
                    None => nothing += 1,
                }
            }
            settled
        });
    }
    // New ones come in meanwhile.
    let late = fixture.write().await;
    for from in (3001..4000).step_by(100) {
        fill(&late, from, from + 99).await;
    }
    drop(late);
    let mut settled: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let mut conn = fixture.write().await;
    for what in ["CZK", "EUR"] {
        settled.extend(conn.settle(&settling(what)).await.unwrap());
    }

    assert_eq!(fixture.count("SELECT count(*) FROM transactions WHERE settlement_id IS NULL").await, 0);
    assert_eq!(fixture.count("SELECT count(*) FROM settled_again").await, 0);
    let ids: HashSet<_> = settled.iter().map(|settlement| settlement.id).collect();
    assert_eq!(ids.len(), settled.len());
    assert!(settled.len() > 8, "they ran side by side: {}", settled.len());
    let count: i64 = settled.iter().map(|settlement| settlement.transaction_count).sum();
    assert_eq!(count, 4000);
    // The returned, the stored and the recomputed sums are the same.
    let mismatched = "SELECT count(*) FROM settlements s WHERE (s.total, s.transaction_count) <> \
                      (SELECT sum(CASE kind WHEN 'deposit' THEN amount ELSE -amount END), count(*) \
                      FROM transactions t WHERE t.settlement_id = s.id AND t.asset = s.asset)";
    assert_eq!(fixture.count(mismatched).await, 0);
    for what in ["CZK", "EUR"] {
        let sum = settled.iter().filter(|settlement| settlement.asset == asset(what));
        let sum: bigdecimal::BigDecimal = sum.map(|settlement| settlement.total.as_decimal()).sum();
        let sql = format!(
            "SELECT sum(CASE kind WHEN 'deposit' THEN amount ELSE -amount END)::text AS text \
             FROM transactions WHERE asset = '{what}'"
        );
        let stored: Balance = fixture.text(&sql).await.parse().unwrap();
        assert_eq!(Balance::from(sum), stored, "{what}");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM audit_log").await, settled.len() as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_is_dropped_half_way_settles_all_or_nothing() {
    let fixture = Fixture::start().await;
    fill(&fixture.write().await, 1, 500).await;
    for i in 0..20 {
        let mut conn = fixture.write().await;
        // A deadline that falls somewhere into the transaction.
        let _ =
            tokio::time::timeout(Duration::from_millis(i), conn.settle(&settling("CZK").at_most(20))).await;
    }
    #[derive(QueryableByName)]
    struct Left {
        #[diesel(sql_type = Text)]
        text: String,
    }
    // Sessions whose connection was cut may still hold locks for a moment, and their rows are skipped until they end.
    let mut conn = fixture.write().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        for what in ["CZK", "EUR"] {
            while conn.settle(&settling(what)).await.unwrap().is_some() {}
        }
        let left =
            diesel::sql_query("SELECT count(*)::text AS text FROM transactions WHERE settlement_id IS NULL");
        let left: Left = left.get_result(&conn).await.unwrap();
        if left.text == "0" {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{} are left", left.text);
    }
    let counts = "SELECT sum(transaction_count)::bigint AS count FROM settlements";
    assert_eq!(fixture.count(counts).await, 500);
    assert_eq!(
        fixture.count("SELECT count(*) FROM audit_log").await,
        fixture.count("SELECT count(*) FROM settlements").await
    );
}
