//! Callbacks: delivered once or many times, one transaction.

use pointsman::payments::{
    Conflict, Error, NewCallback, NewTransaction, Recorded, SettlementRepository, Settling, Status,
    TransactionRepository,
};
use tokio::task::JoinSet;

use super::{Fixture, completed};

fn callback(key: &str, transaction: NewTransaction) -> NewCallback {
    NewCallback { key: key.parse().expect("a key"), transaction }
}

#[tokio::test]
async fn a_repeated_callback_is_one_transaction() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let told = callback("k-1", completed("1", "576", "5.00", "CZK").with_status(Status::Pending));
    let Recorded::Created(first) = conn.record_callback(&told).await.unwrap() else { panic!("it is new") };
    let Recorded::Duplicate(again) = conn.record_callback(&told).await.unwrap() else {
        panic!("it is known")
    };
    assert_eq!(first, again);

    // A duplicate returns the transaction's present status.
    conn.advance_transaction(first.id, Status::Completed, &"clerk".parse().unwrap()).await.unwrap();
    let again = conn.record_callback(&told).await.unwrap();
    assert_eq!((again.is_created(), again.transaction().status), (false, Status::Completed));
    assert_eq!(fixture.count("SELECT count(*) FROM transactions").await, 1);
    assert_eq!(fixture.count("SELECT count(*) FROM callbacks").await, 1);
}

#[tokio::test]
async fn a_repeat_may_reorder_metadata_and_add_zeros_to_the_amount() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let told = |amount: &str, metadata: &str| {
        let metadata = serde_json::from_str(metadata).unwrap();
        callback("k-1", completed("1", "576", amount, "CZK").with_metadata(metadata))
    };
    assert!(conn.record_callback(&told("5", r#"{"a": 1e15, "b": 2}"#)).await.unwrap().is_created());
    assert!(!conn.record_callback(&told("5.000", r#"{"b": 2, "a": 1e15}"#)).await.unwrap().is_created());
}

#[tokio::test]
async fn an_idempotency_key_with_other_content_is_refused() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let told = callback("k-1", completed("1", "576", "5", "CZK"));
    assert!(conn.record_callback(&told).await.unwrap().is_created());

    // The same key for another transaction: nothing of it stays.
    let error = conn.record_callback(&callback("k-1", completed("2", "576", "5", "CZK"))).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(Conflict::IdempotencyKey { .. })), "{error:?}");
    // The same key and transaction, with other content.
    for other in [
        completed("1", "576", "5.01", "CZK"),
        completed("1", "577", "5", "CZK"),
        completed("1", "576", "5", "EUR"),
        completed("1", "576", "-5", "CZK"),
        completed("1", "576", "5", "CZK").with_status(Status::Failed),
        completed("1", "576", "5", "CZK").with_metadata(Default::default()),
    ] {
        let error = conn.record_callback(&callback("k-1", other)).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM transactions").await, 1);
    // Another provider's key is another key.
    let mut elsewhere = completed("1", "576", "7", "CZK");
    elsewhere.provider = "till".parse().unwrap();
    assert!(conn.record_callback(&callback("k-1", elsewhere)).await.unwrap().is_created());
}

#[tokio::test]
async fn another_key_for_the_same_transaction_is_a_duplicate() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let new = completed("1", "576", "5", "CZK");
    let first = conn.record_callback(&callback("k-1", new.clone())).await.unwrap().into_transaction();
    let again = conn.record_callback(&callback("k-2", new)).await.unwrap();
    assert_eq!(again, Recorded::Duplicate(first));
    let error = conn.record_callback(&callback("k-3", completed("1", "576", "6", "CZK"))).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(Conflict::ProviderId { .. })), "{error:?}");
    assert_eq!(fixture.count("SELECT count(*) FROM callbacks").await, 2);
}

/// A second message was "duplicate", so a deposit that began as pending stayed so for ever.
#[tokio::test]
async fn a_later_status_moves_the_transaction_forward() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let told = |key: &str, status| callback(key, completed("1", "576", "5", "CZK").with_status(status));
    assert!(conn.record_callback(&told("k-1", Status::Pending)).await.unwrap().is_created());
    let Recorded::Advanced(done) = conn.record_callback(&told("k-2", Status::Completed)).await.unwrap()
    else {
        panic!("it is further")
    };
    assert_eq!(done.status, Status::Completed);
    assert_eq!(conn.balance(&done.account, &done.asset).await.unwrap(), "5".parse().unwrap());
    let moved =
        "SELECT count(*) FROM audit_log WHERE actor = 'bank' AND details @> '{\"to\": \"completed\"}'";
    assert_eq!(fixture.count(moved).await, 1);

    // Neither a repetition nor an earlier message that arrives late changes it.
    for late in
        [told("k-1", Status::Pending), told("k-3", Status::Processing), told("k-4", Status::Completed)]
    {
        assert_eq!(conn.record_callback(&late).await.unwrap(), Recorded::Duplicate(done.clone()), "{late:?}");
    }
    // A contradiction is refused, and nothing of it is stored.
    let error = conn.record_callback(&told("k-5", Status::Failed)).await.unwrap_err();
    let Error::IllegalTransition { from, to } = error else { panic!("{error:?}") };
    assert_eq!((from, to), (Status::Completed, Status::Failed));
    assert_eq!(fixture.count("SELECT count(*) FROM callbacks WHERE idempotency_key = 'k-5'").await, 0);

    // What a settlement has summed stays.
    let settling = Settling::new(done.asset.clone(), "clerk".parse().unwrap());
    conn.settle(&settling).await.unwrap().expect("a settlement");
    let error = conn.record_callback(&told("k-6", Status::Refunded)).await.unwrap_err();
    assert!(matches!(error, Error::Settled { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_messages_about_one_transaction_end_at_the_furthest() {
    let fixture = Fixture::start().await;
    for round in 0..10 {
        let mut tasks = JoinSet::new();
        for (i, status) in
            [Status::Pending, Status::Processing, Status::Completed].into_iter().cycle().take(9).enumerate()
        {
            let new = completed(&format!("{round}"), "576", "5", "CZK").with_status(status);
            let (mut conn, told) = (fixture.write().await, callback(&format!("k-{round}-{i}"), new));
            tasks.spawn(async move { conn.record_callback(&told).await.expect("no contradiction") });
        }
        let outcomes = tasks.join_all().await;
        assert_eq!(outcomes.iter().filter(|recorded| recorded.is_created()).count(), 1);
    }
    assert_eq!(fixture.count("SELECT count(*) FROM transactions WHERE status = 'completed'").await, 10);
    let conn = fixture.write().await;
    let balance = conn.balance(&"576".parse().unwrap(), &"CZK".parse().unwrap()).await.unwrap();
    assert_eq!(balance, "50".parse().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_repeats_of_a_callback_are_one_transaction() {
    let fixture = Fixture::start().await;
    for round in 0..10 {
        let told = callback(&format!("k-{round}"), completed(&format!("{round}"), "576", "5", "CZK"));
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (mut conn, told) = (fixture.write().await, told.clone());
            tasks.spawn(async move { conn.record_callback(&told).await.expect("no conflict") });
        }
        let outcomes = tasks.join_all().await;
        assert_eq!(outcomes.iter().filter(|recorded| recorded.is_created()).count(), 1);
        let id = outcomes[0].transaction().id;
        assert!(outcomes.iter().all(|recorded| recorded.transaction().id == id));
    }
    assert_eq!(fixture.count("SELECT count(*) FROM transactions").await, 10);
    assert_eq!(fixture.count("SELECT count(*) FROM callbacks").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_contents_under_one_key_one_is_stored() {
    let fixture = Fixture::start().await;
    let mut tasks = JoinSet::new();
    for i in 0..8 {
        let mut conn = fixture.write().await;
        // Half of them agree on the provider's id, and so meet at both unique keys.
        let told = callback("k-1", completed(&format!("{}", i % 4), "576", "5", "CZK"));
        tasks.spawn(async move { conn.record_callback(&told).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2, "{outcomes:?}");
    for outcome in outcomes {
        match outcome {
            Ok(_) | Err(Error::Conflict(Conflict::IdempotencyKey { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fixture.count("SELECT count(*) FROM transactions").await, 1);
}
