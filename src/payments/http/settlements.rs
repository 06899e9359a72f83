//! Settlements: made, looked up, paid.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::Service;
use super::error::ApiError;
use super::extract::{Body, Id, InSession, Params, optional};
use super::served::{self, Served};
use super::transactions::{ONCE, actor, known_asset, page};
use crate::payments::settlements::settle;
use crate::payments::{Page, Settlement, SettlementRepository, Settling};
use crate::{Conn, Read};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleRequest {
    asset: String,
    up_to: Option<String>,
    limit: Option<i64>,
    actor: Option<String>,
}

pub(super) async fn create(
    State(service): State<Service>,
    InSession(session): InSession,
    Body(request): Body<SettleRequest>,
) -> Result<Response, ApiError> {
    let asset = known_asset(&request.asset, &service.settings.assets)?;
    let up_to: Option<DateTime<Utc>> = optional("up_to", "invalid_time", request.up_to.as_deref())?;
    // The locks of a settlement are held until its end; larger ones are made in portions.
    let limit = match request.limit.map(u32::try_from) {
        None => Settling::DEFAULT_LIMIT,
        Some(Ok(limit)) if (1..=Settling::DEFAULT_LIMIT).contains(&limit) => limit,
        Some(_) => {
            let largest = Settling::DEFAULT_LIMIT;
            let message = format!("`limit`: settle from 1 to {largest} transactions at once");
            return Err(ApiError::invalid("invalid_limit", message));
        }
    };
    let mut settling = Settling::new(asset, actor(request.actor.as_deref())?).at_most(limit);
    settling.up_to = up_to;
    let write =
        session.run_write_with(&ONCE, async |tx| Served::result(tx, settle::settle(tx, &settling).await));
    let Some(settlement) = write.await?.transpose() else {
        let message = format!("there is nothing to settle of {}", settling.asset);
        return Err(ApiError::new(StatusCode::CONFLICT, "nothing_to_settle", message));
    };
    let place = format!("/settlements/{}", settlement.document().id);
    let mut response = settlement.with_status(StatusCode::CREATED).into_response();
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

pub(super) async fn find(InSession(session): InSession, Id(id): Id) -> Result<Served<Settlement>, ApiError> {
    let find = async move |conn: &mut Conn<Read>| Served::result(conn, conn.find_settlement(id).await);
    served::find(&session, "settlement", id, find).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    asset: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(service): State<Service>,
    InSession(session): InSession,
    Params(params): Params<ListParams>,
) -> Result<Served<Page<Settlement>>, ApiError> {
    let page = page(params.limit, params.cursor.as_deref())?;
    let asset = params.asset.map(|asset| known_asset(&asset, &service.settings.assets)).transpose()?;
    session
        .run_read(async |conn| Served::result(conn, conn.list_settlements(asset.as_ref(), page).await))
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paid {
    actor: Option<String>,
}

pub(super) async fn paid(
    InSession(session): InSession,
    Id(id): Id,
    Body(paid): Body<Paid>,
) -> Result<Served<Settlement>, ApiError> {
    let actor = actor(paid.actor.as_deref())?;
    session
        .run_write_with(&ONCE, async |tx| Served::result(tx, settle::mark_paid(tx, id, &actor).await))
        .await
}
