//! The audit log: actions and their actors. Entries are only ever added.
//!
//! The type offers no other write, and a trigger at the server refuses one from other clients.

use std::fmt;
use std::future::Future;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::page::List;
use super::schema::audit_log;
use super::status::{UnknownName, named};
use super::{Actor, Cursor, Error, Page, PageRequest};
use crate::prelude::*;

named! {
    /// The kind of object that an entry is about.
    Entity = "entity" {
        /// A transaction.
        Transaction = "transaction",
        /// A settlement.
        Settlement = "settlement",
    }
}

named! {
    /// The action.
    Action = "action" {
        /// A transaction moved to another status.
        Advanced = "advanced",
        /// Transactions were settled.
        Settled = "settled",
        /// A settlement was paid out.
        Paid = "paid",
        /// A remark, which changed nothing.
        Noted = "noted",
    }
}

/// An entry of the audit log as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Serialize)]
#[diesel(table_name = audit_log, check_for_backend(Pg))]
pub struct AuditEntry {
    /// Its number. Numbers increase, possibly with gaps.
    pub id: i64,
    /// The kind of object.
    pub entity: Entity,
    /// The id of that object.
    pub entity_id: Uuid,
    /// The action.
    pub action: Action,
    /// The actor.
    pub actor: Actor,
    /// Further details.
    pub details: Option<Value>,
    /// The time of the action.
    pub created_at: DateTime<Utc>,
}

/// An entry to append.
#[derive(Debug, Clone, PartialEq, Eq, Insertable)]
#[diesel(table_name = audit_log)]
#[must_use = "it is recorded by `AuditRepository::record_audit`"]
pub struct NewAuditEntry {
    /// The kind of object.
    pub entity: Entity,
    /// The id of that object.
    pub entity_id: Uuid,
    /// The action.
    pub action: Action,
    /// The actor.
    pub actor: Actor,
    /// Further details.
    pub details: Option<Value>,
}

impl NewAuditEntry {
    /// Creates an entry without details.
    pub fn new(entity: Entity, entity_id: Uuid, action: Action, actor: Actor) -> Self {
        Self { entity, entity_id, action, actor, details: None }
    }

    /// Adds details.
    pub fn with_details(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }
}

/// A filter on entries: all given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Entries about one kind of object.
    pub entity: Option<Entity>,
    /// Entries about one object.
    pub entity_id: Option<Uuid>,
}

/// Reads the audit log, and appends to it.
///
/// ```
/// use pointsman::payments::{Action, Actor, AuditEntry, AuditRepository, Entity, Error, NewAuditEntry};
/// use pointsman::prelude::*;
/// use uuid::Uuid;
///
/// async fn remark(conn: &Conn<Write>, id: Uuid, actor: Actor, text: &str) -> Result<AuditEntry, Error> {
///     let entry = NewAuditEntry::new(Entity::Transaction, id, Action::Noted, actor);
///     conn.record_audit(&entry.with_details(text.into())).await
/// }
/// ```
///
/// # Errors
///
/// Every method fails with [`Error::Query`] if the database fails, besides the errors that it names itself.
pub trait AuditRepository<I: Intent> {
    /// Lists entries, the latest first.
    ///
    /// # Errors
    ///
    /// [`Error::BadCursor`] if the cursor belongs to another list.
    fn list_audit(
        &self,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<AuditEntry>, Error>> + Send;

    /// Appends an entry. Inside a transaction, it is kept if the transaction commits.
    fn record_audit(&self, entry: &NewAuditEntry) -> impl Future<Output = Result<AuditEntry, Error>> + Send
    where
        I: Writable;
}

impl<I: Intent> AuditRepository<I> for Conn<I> {
    async fn list_audit(&self, filter: &AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>, Error> {
        list(self.as_read(), filter, page).await
    }

    async fn record_audit(&self, entry: &NewAuditEntry) -> Result<AuditEntry, Error>
    where
        I: Writable,
    {
        append(self.as_write(), entry).await
    }
}

async fn list(conn: &Conn<Read>, filter: &AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>, Error> {
    let mut query = audit_log::table.select(AuditEntry::as_select()).into_boxed();
    if let Some(entity) = filter.entity {
        query = query.filter(audit_log::entity.eq(entity));
    }
    if let Some(id) = filter.entity_id {
        query = query.filter(audit_log::entity_id.eq(id));
    }
    if let Some(cursor) = page.after {
        query = query.filter(audit_log::id.lt(cursor.number(List::Audit)?));
    }
    let rows: Vec<AuditEntry> = query.order(audit_log::id.desc()).limit(page.size.rows()).load(conn).await?;
    Ok(Page::cut(rows, page.size, |row| Cursor::at_number(List::Audit, row.id)))
}

pub(super) async fn append(conn: &Conn<Write>, entry: &NewAuditEntry) -> Result<AuditEntry, Error> {
    let insert = diesel::insert_into(audit_log::table).values(entry).returning(AuditEntry::as_returning());
    Ok(insert.get_result(conn).await?)
}
