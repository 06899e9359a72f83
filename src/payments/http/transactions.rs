//! Transactions: recorded, received from providers, looked up, moved forward.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Service;
use super::error::ApiError;
use super::extract::{Body, Id, InSession, Params, optional, value};
use super::served::{self, Served};
use crate::payments::transactions::record;
use crate::payments::{
    Actor, Asset, NewCallback, NewTransaction, Page, PageRequest, PageSize, Recorded, Status, Transaction,
    TransactionFilter, TransactionRepository,
};
use crate::{Conn, Read, Write, WriteOptions};

/// Every write takes effect once, through any failover.
pub(super) const ONCE: WriteOptions = WriteOptions::new().exactly_once();

/// A transaction as it comes in.
///
/// All values are text, so that an error can name the invalid one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Incoming {
    provider: String,
    provider_id: String,
    account: String,
    kind: String,
    amount: Value,
    asset: String,
    status: Option<String>,
    occurred_at: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl Incoming {
    fn check(self, assets: &BTreeSet<Asset>) -> Result<NewTransaction, ApiError> {
        let Value::String(amount) = &self.amount else {
            return Err(ApiError::invalid(
                "invalid_amount",
                "`amount`: write it as a text, such as \"12.50\"",
            ));
        };
        let new = NewTransaction::new(
            value("provider", "invalid_provider", &self.provider)?,
            value("provider_id", "invalid_provider_id", &self.provider_id)?,
            value("account", "invalid_account", &self.account)?,
            value("kind", "invalid_kind", &self.kind)?,
            value("amount", "invalid_amount", amount)?,
            known_asset(&self.asset, assets)?,
        );
        let status = optional("status", "invalid_status", self.status.as_deref())?;
        let occurred_at = optional("occurred_at", "invalid_time", self.occurred_at.as_deref())?;
        if let Some(metadata) = &self.metadata {
            check_metadata(metadata)?;
        }
        let status = status.unwrap_or(Status::Pending);
        Ok(NewTransaction { occurred_at, metadata: self.metadata, ..new.with_status(status) })
    }
}

/// PostgreSQL's text cannot hold U+0000, so its JSON documents cannot either.
fn check_metadata(metadata: &Map<String, Value>) -> Result<(), ApiError> {
    fn has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(values) => values.iter().any(has_nul),
            Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
            _ => false,
        }
    }
    if metadata.iter().any(|(key, value)| key.contains('\0') || has_nul(value)) {
        return Err(ApiError::invalid("invalid_metadata", "`metadata`: U+0000 cannot be stored"));
    }
    Ok(())
}

pub(super) fn known_asset(text: &str, assets: &BTreeSet<Asset>) -> Result<Asset, ApiError> {
    let asset: Asset = value("asset", "unknown_asset", text)?;
    if !assets.contains(&asset) {
        return Err(ApiError::invalid(
            "unknown_asset",
            format!("`asset`: {asset} is not one that is known here"),
        ));
    }
    Ok(asset)
}

pub(super) async fn create(
    State(service): State<Service>,
    InSession(session): InSession,
    Body(incoming): Body<Incoming>,
) -> Result<Response, ApiError> {
    let new = incoming.check(&service.settings.assets)?;
    let write = session.run_write_with(&ONCE, async |tx| Served::result(tx, record::record(tx, &new).await));
    let recorded = write.await?;
    let place = format!("/transactions/{}", recorded.document().id);
    let mut response = recorded.with_status(StatusCode::CREATED).into_response();
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// A message of a provider.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IncomingCallback {
    idempotency_key: String,
    transaction: Incoming,
}

/// The outcome.
#[derive(Serialize)]
struct Outcome {
    result: &'static str,
    transaction: Transaction,
}

pub(super) async fn callback(
    State(service): State<Service>,
    InSession(session): InSession,
    Body(incoming): Body<IncomingCallback>,
) -> Result<Response, ApiError> {
    let key = value("idempotency_key", "invalid_idempotency_key", &incoming.idempotency_key)?;
    let callback = NewCallback { key, transaction: incoming.transaction.check(&service.settings.assets)? };
    let write =
        session.run_write_with(&ONCE, async |tx| Served::result(tx, record::callback(tx, &callback).await));
    let recorded = write.await?;
    let (status, result) = match recorded.document() {
        Recorded::Created(_) => (StatusCode::CREATED, "created"),
        Recorded::Advanced(_) => (StatusCode::OK, "advanced"),
        Recorded::Duplicate(_) => (StatusCode::OK, "duplicate"),
    };
    let outcome = |recorded: Recorded| Outcome { result, transaction: recorded.into_transaction() };
    Ok(recorded.map(outcome).with_status(status).into_response())
}

pub(super) async fn find(InSession(session): InSession, Id(id): Id) -> Result<Served<Transaction>, ApiError> {
    let find = async move |conn: &mut Conn<Read>| Served::result(conn, conn.find_transaction(id).await);
    served::find(&session, "transaction", id, find).await
}

/// The requested page of a list.
pub(super) fn page(limit: Option<i64>, cursor: Option<&str>) -> Result<PageRequest, ApiError> {
    let largest = PageSize::MAX.items();
    let size = match limit.map(u16::try_from) {
        None => PageSize::default(),
        Some(Ok(limit)) if (1..=largest).contains(&limit.into()) => PageSize::new(limit),
        Some(_) => {
            return Err(ApiError::invalid(
                "invalid_limit",
                format!("`limit`: ask for 1 to {largest} at once"),
            ));
        }
    };
    let page = PageRequest::first(size);
    let Some(cursor) = cursor else { return Ok(page) };
    Ok(page.after(cursor.parse().map_err(|error| ApiError::bad_request("invalid_cursor", error))?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    account: Option<String>,
    asset: Option<String>,
    kind: Option<String>,
    status: Option<String>,
    settlement: Option<String>,
    from: Option<String>,
    before: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

pub(super) async fn list(
    InSession(session): InSession,
    Params(params): Params<ListParams>,
) -> Result<Served<Page<Transaction>>, ApiError> {
    let page = page(params.limit, params.cursor.as_deref())?;
    let time = |name, text: &Option<String>| optional::<DateTime<Utc>>(name, "invalid_time", text.as_deref());
    let filter = TransactionFilter {
        account: optional("account", "invalid_account", params.account.as_deref())?,
        asset: optional("asset", "unknown_asset", params.asset.as_deref())?,
        kind: optional("kind", "invalid_kind", params.kind.as_deref())?,
        status: optional("status", "invalid_status", params.status.as_deref())?,
        settlement: optional("settlement", "invalid_id", params.settlement.as_deref())?,
        from: time("from", &params.from)?,
        before: time("before", &params.before)?,
    };
    session.run_read(async |conn| Served::result(conn, conn.list_transactions(&filter, page).await)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Advance {
    status: String,
    actor: Option<String>,
}

pub(super) async fn advance(
    InSession(session): InSession,
    Id(id): Id,
    Body(advance): Body<Advance>,
) -> Result<Served<Transaction>, ApiError> {
    let to = value("status", "invalid_status", &advance.status)?;
    let actor = actor(advance.actor.as_deref())?;
    let advance = async |tx: &mut Conn<Write>| Served::result(tx, record::advance(tx, id, to, &actor).await);
    session.run_write_with(&ONCE, advance).await
}

/// The actor, for the audit log.
pub(super) fn actor(text: Option<&str>) -> Result<Actor, ApiError> {
    value("actor", "invalid_actor", text.unwrap_or("api"))
}
