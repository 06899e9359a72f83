//! Lists, page by page.

use chrono::{DateTime, TimeDelta, Utc};
use pointsman::payments::{
    AuditFilter, AuditRepository, BadCursor, Error, Kind, PageRequest, PageSize, SettlementRepository,
    Settling, Status, TransactionFilter, TransactionRepository,
};
use uuid::Uuid;

use super::{Fixture, account, asset, completed, record};

/// Walks through a list of transactions and checks each page on the way.
async fn walk(fixture: &Fixture, filter: &TransactionFilter, size: u16) -> Vec<Uuid> {
    let conn = fixture.set.read().await.expect("a read connection");
    let (mut ids, mut request) = (Vec::new(), PageRequest::first(PageSize::new(size)));
    loop {
        let page = conn.list_transactions(filter, request).await.expect("a page");
        assert!(page.items.len() <= usize::from(size));
        ids.extend(page.items.iter().map(|transaction| transaction.id));
        let Some(next) = page.next else { return ids };
        assert_eq!(page.items.len(), usize::from(size), "only the last page may be short");
        // It goes out as text and comes back.
        request = request.after(next.to_string().parse().expect("a cursor"));
    }
}

#[tokio::test]
async fn pages_show_each_transaction_once_also_within_one_moment() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    let start: DateTime<Utc> = "2024-01-01T00:00:00Z".parse().unwrap();
    let mut expected = Vec::new();
    for i in 0..23 {
        // Several share a moment, so that pages end in the middle of one.
        let time = start + TimeDelta::seconds(i / 5);
        let new = completed(&format!("{i}"), "576", "1", "CZK").with_occurred_at(time);
        let transaction = record(&conn, new).await;
        expected.push((transaction.occurred_at, transaction.id));
    }
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
    for size in [1, 2, 5, 7, 22, 23, 24] {
        assert_eq!(walk(&fixture, &TransactionFilter::default(), size).await, expected, "pages of {size}");
    }
}

#[tokio::test]
async fn a_row_that_comes_in_meanwhile_neither_repeats_nor_hides_another() {
    let fixture = Fixture::start().await;
    let conn = fixture.write().await;
    for i in 0..4 {
        record(&conn, completed(&format!("{i}"), "576", "1", "CZK")).await;
    }
    let all = walk(&fixture, &TransactionFilter::default(), 10).await;
    let request = PageRequest::first(PageSize::new(2));
    let first = conn.list_transactions(&TransactionFilter::default(), request).await.unwrap();
    record(&conn, completed("late", "576", "1", "CZK")).await;
    let rest = conn
        .list_transactions(&TransactionFilter::default(), request.after(first.next.unwrap()))
        .await
        .unwrap();
    let ids: Vec<_> = first.items.iter().chain(&rest.items).map(|transaction| transaction.id).collect();
    assert_eq!(ids, all);
}

#[tokio::test]
async fn filters_narrow_a_list() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let at = |text: &str| -> DateTime<Utc> { text.parse().unwrap() };
    let (monday, tuesday) = (at("2024-01-01T12:00:00Z"), at("2024-01-02T00:00:00Z"));
    let a = record(&conn, completed("a", "576", "1", "CZK").with_occurred_at(monday)).await.id;
    let b = record(&conn, completed("b", "576", "-1", "CZK").with_occurred_at(tuesday)).await.id;
    let c = record(&conn, completed("c", "704", "1", "EUR").with_occurred_at(tuesday)).await.id;
    let pending = completed("d", "704", "1", "EUR").with_occurred_at(monday).with_status(Status::Pending);
    let d = record(&conn, pending).await.id;
    let settled = conn.settle(&Settling::new(asset("EUR"), "clerk".parse().unwrap())).await.unwrap().unwrap();
    let all = TransactionFilter::default;
    for (filter, expected) in [
        (TransactionFilter { account: Some(account("576")), ..all() }, vec![b, a]),
        (TransactionFilter { asset: Some(asset("EUR")), ..all() }, vec![c, d]),
        (TransactionFilter { kind: Some(Kind::Withdrawal), ..all() }, vec![b]),
        (TransactionFilter { status: Some(Status::Pending), ..all() }, vec![d]),
        (TransactionFilter { settlement: Some(settled.id), ..all() }, vec![c]),
        (TransactionFilter { from: Some(tuesday), ..all() }, vec![c, b]),
        (TransactionFilter { before: Some(tuesday), ..all() }, vec![d, a]),
        (TransactionFilter { account: Some(account("576")), from: Some(tuesday), ..all() }, vec![b]),
        (TransactionFilter { account: Some(account("unknown")), ..all() }, vec![]),
    ] {
        assert_eq!(walk(&fixture, &filter, 1).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn each_list_refuses_the_cursor_of_another() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.write().await;
    let clerk: pointsman::payments::Actor = "clerk".parse().unwrap();
    for i in 0..4 {
        let new = completed(&format!("{i}"), "576", "1", "CZK").with_status(Status::Processing);
        let id = record(&conn, new).await.id;
        conn.advance_transaction(id, Status::Completed, &clerk).await.unwrap();
    }
    for _ in 0..2 {
        conn.settle(&Settling::new(asset("CZK"), clerk.clone()).at_most(2)).await.unwrap().unwrap();
    }
    let first = PageRequest::first(PageSize::new(1));
    let transactions =
        conn.list_transactions(&TransactionFilter::default(), first).await.unwrap().next.unwrap();
    let settlements = conn.list_settlements(None, first).await.unwrap().next.unwrap();
    let audit = conn.list_audit(&AuditFilter::default(), first).await.unwrap().next.unwrap();

    let page = conn.list_settlements(Some(&asset("CZK")), first.after(settlements)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
    let page = conn.list_audit(&AuditFilter::default(), PageRequest::default().after(audit)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (5, None), "four steps and two settlements, less the first");

    let error =
        conn.list_transactions(&TransactionFilter::default(), first.after(settlements)).await.unwrap_err();
    assert!(matches!(error, Error::BadCursor(BadCursor::OtherList)), "{error:?}");
    let error = conn.list_settlements(None, first.after(audit)).await.unwrap_err();
    assert!(matches!(error, Error::BadCursor(BadCursor::OtherList)), "{error:?}");
    let error = conn.list_audit(&AuditFilter::default(), first.after(transactions)).await.unwrap_err();
    assert!(matches!(error, Error::BadCursor(BadCursor::OtherList)), "{error:?}");
}
