//! Recording transactions, finding them and taking them forward.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pointsman::payments::{
    Action, AuditFilter, AuditRepository, Conflict, Entity, Error, PageRequest, SettlementRepository,
    Settling, Status, TransactionRepository,
};
use pointsman::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Fixture, asset, completed, record};

#[tokio::test]
async fn a_recorded_transaction_is_read_back_unchanged() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    let metadata = serde_json::json!({"iban": "CZ65 0800", "nested": {"n": [1, 2.5, null]}});
    let time: DateTime<Utc> = "1998-12-31T23:59:59.999999Z".parse().unwrap();
    for (id, amount) in
        [("smallest", "0.000000000000000001"), ("largest", "99999999999999999999.999999999999999999")]
    {
        let new = completed(id, "576", amount, "CZK")
            .with_status(Status::Pending)
            .with_occurred_at(time)
            .with_metadata(metadata.as_object().unwrap().clone());
        let recorded = record(&conn, new.clone()).await;
        assert_eq!(recorded.amount.to_string(), amount);
        assert_eq!(recorded.occurred_at, time);
        assert_eq!(recorded.metadata, Some(metadata.clone()));
        assert_eq!((recorded.status, recorded.settlement_id), (Status::Pending, None));
        assert_eq!(conn.find_transaction(recorded.id).await.unwrap(), Some(recorded.clone()));
        let found = conn.find_transaction_by_provider_id(&new.provider, &new.provider_id).await.unwrap();
        assert_eq!(found, Some(recorded));
    }
    assert_eq!(conn.find_transaction(Uuid::now_v7()).await.unwrap(), None);
}

#[tokio::test]
async fn a_providers_id_is_taken_once_and_the_connection_stays_good() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    record(&conn, completed("1", "576", "5", "CZK")).await;
    let error = conn.record_transaction(&completed("1", "576", "5", "CZK")).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict(Conflict::ProviderId { .. })), "{error:?}");
    assert_eq!(
        error.to_string(),
        "bank already has a transaction 1: use each id once, or send the same content"
    );
    let mut elsewhere = completed("1", "576", "5", "CZK");
    elsewhere.provider = "till".parse().unwrap();
    record(&conn, elsewhere).await;
}

#[tokio::test]
async fn a_time_that_cannot_be_written_down_is_refused() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    for time in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        let error = conn
            .record_transaction(&completed("1", "576", "5", "CZK").with_occurred_at(time))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::TimeOutOfRange(refused) if refused == time), "{error:?}");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM transactions").await, 0);
}

#[tokio::test]
async fn a_status_only_advances_and_is_in_the_audit_log() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let clerk = "clerk".parse().unwrap();
    let id = record(&conn, completed("1", "576", "5", "CZK").with_status(Status::Pending)).await.id;
    for to in [Status::Processing, Status::Completed, Status::Refunded] {
        let advanced = conn.advance_transaction(id, to, &clerk).await.unwrap();
        assert_eq!(advanced.status, to);
        assert!(advanced.updated_at >= advanced.created_at);
    }
    let error = conn.advance_transaction(id, Status::Pending, &clerk).await.unwrap_err();
    let Error::IllegalTransition { from, to } = error else { panic!("{error:?}") };
    assert_eq!((from, to), (Status::Refunded, Status::Pending));

    let missing = Uuid::now_v7();
    let error = conn.advance_transaction(missing, Status::Completed, &clerk).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { id, .. } if id == missing), "{error:?}");

    let filter = AuditFilter { entity: Some(Entity::Transaction), entity_id: Some(id) };
    let log = conn.list_audit(&filter, PageRequest::default()).await.unwrap().items;
    let steps: Vec<_> = log.iter().map(|entry| (entry.action, entry.details.clone().unwrap())).collect();
    let step = |from, to| (Action::Advanced, serde_json::json!({"from": from, "to": to}));
    assert_eq!(
        steps,
        [step("completed", "refunded"), step("processing", "completed"), step("pending", "processing")]
    );
    assert!(log.iter().all(|entry| entry.actor == clerk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_concurrent_status_changes_one_succeeds() {
    let fixture = Fixture::start().await;
    let id = record(&fixture.write().await, completed("1", "576", "5", "CZK").with_status(Status::Pending))
        .await
        .id;
    // The row is held until all of them wait for it, so that none decides before the others have asked.
    let mut tasks = tokio::task::JoinSet::new();
    let held: Result<(), Error> = fixture
        .write()
        .await
        .transaction(async |tx| {
            let hold = format!("SELECT id FROM transactions WHERE id = '{id}' FOR UPDATE");
            diesel::sql_query(hold).execute(tx).await?;
            for i in 0..6 {
                let mut conn = fixture.write().await;
                let to = if i % 2 == 0 { Status::Completed } else { Status::Failed };
                tasks.spawn(async move { conn.advance_transaction(id, to, &"clerk".parse().unwrap()).await });
            }
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            let deadline = Instant::now() + Duration::from_secs(10);
            while fixture.count(waiting).await < 6 {
                assert!(Instant::now() < deadline, "they do not wait");
            }
            Ok(())
        })
        .await;
    held.unwrap();
    let outcomes = tasks.join_all().await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    let reached = won.into_iter().next().unwrap().unwrap().status;
    for outcome in lost {
        let Err(Error::IllegalTransition { from, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(from, reached);
    }
    assert_eq!(fixture.count("SELECT count(*) FROM audit_log").await, 1);
}

#[tokio::test]
async fn a_settled_transaction_does_not_change() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let id = record(&conn, completed("1", "576", "5", "CZK")).await.id;
    let clerk: pointsman::payments::Actor = "clerk".parse().unwrap();
    let settlement = conn.settle(&Settling::new(asset("CZK"), clerk.clone())).await.unwrap().unwrap();
    let error = conn.advance_transaction(id, Status::Refunded, &clerk).await.unwrap_err();
    assert!(
        matches!(error, Error::Settled { id: refused, settlement: by } if refused == id && by == settlement.id),
        "{error:?}"
    );
    // And the server refuses it from any client.
    fixture
        .cluster
        .primary()
        .execute("UPDATE transactions SET status = 'refunded'")
        .await
        .expect_err("a CHECK constraint");
}

#[tokio::test]
async fn the_audit_log_is_append_only_at_the_server_too() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let id = record(&conn, completed("1", "576", "5", "CZK")).await.id;
    conn.advance_transaction(id, Status::Refunded, &"clerk".parse().unwrap()).await.unwrap();
    for sql in ["UPDATE audit_log SET actor = 'other'", "DELETE FROM audit_log", "TRUNCATE audit_log"] {
        let error = diesel_async::RunQueryDsl::execute(diesel::sql_query(sql), &mut *conn).await.unwrap_err();
        assert!(error.to_string().contains("append only"), "{sql}: {error}");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM audit_log WHERE actor = 'clerk'").await, 1);
}

#[tokio::test]
async fn an_audit_entry_goes_with_its_transaction() {
    use pointsman::payments::NewAuditEntry;
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let entry = NewAuditEntry::new(Entity::Settlement, Uuid::nil(), Action::Noted, "clerk".parse().unwrap());
    let undone: Result<(), Error> = conn
        .transaction(async |tx| {
            tx.record_audit(&entry).await?;
            Err(Error::NotFound { entity: Entity::Settlement, id: Uuid::nil() })
        })
        .await;
    assert!(matches!(undone, Err(Error::NotFound { .. })));
    assert_eq!(fixture.count("SELECT count(*) FROM audit_log").await, 0);
}
