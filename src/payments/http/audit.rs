//! The audit log: actions and their actors.

use serde::Deserialize;

use super::error::ApiError;
use super::extract::{InSession, Params, optional};
use super::served::Served;
use super::transactions::page;
use crate::payments::{AuditEntry, AuditFilter, AuditRepository, Page};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    entity: Option<String>,
    entity_id: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

pub(super) async fn list(
    InSession(session): InSession,
    Params(params): Params<ListParams>,
) -> Result<Served<Page<AuditEntry>>, ApiError> {
    let page = page(params.limit, params.cursor.as_deref())?;
    let filter = AuditFilter {
        entity: optional("entity", "invalid_entity", params.entity.as_deref())?,
        entity_id: optional("entity_id", "invalid_id", params.entity_id.as_deref())?,
    };
    session.run_read(async |conn| Served::result(conn, conn.list_audit(&filter, page).await)).await
}
