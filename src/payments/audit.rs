//! The audit log: who did what. It is only ever added to.
//!
//! The type offers no other write, and a trigger at the server refuses one from elsewhere.

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
    /// What an entry of the audit log is about.
    Entity = "entity" {
        /// A transaction.
        Transaction = "transaction",
        /// A settlement.
        Settlement = "settlement",
    }
}

named! {
    /// What was done.
    Action = "action" {
        /// A transaction went forward to another status.
        Advanced = "advanced",
        /// Transactions were settled.
        Settled = "settled",
        /// A settlement was paid out.
        Paid = "paid",
        /// Something was remarked, and nothing changed.
        Noted = "noted",
    }
}

/// An entry of the audit log as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Serialize)]
#[diesel(table_name = audit_log, check_for_backend(Pg))]
pub struct AuditEntry {
    /// Its number. Numbers go up, but some may be left out.
    pub id: i64,
    /// What sort of thing it is about.
    pub entity: Entity,
    /// The id of that thing.
    pub entity_id: Uuid,
    /// What was done.
    pub action: Action,
    /// Who did it.
    pub actor: Actor,
    /// What else is worth knowing.
    pub details: Option<Value>,
    /// When it was done.
    pub created_at: DateTime<Utc>,
}

/// An entry that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq, Insertable)]
#[diesel(table_name = audit_log)]
#[must_use = "it is appended by `AuditRepository::append`"]
pub struct NewAuditEntry {
    /// What sort of thing it is about.
    pub entity: Entity,
    /// The id of that thing.
    pub entity_id: Uuid,
    /// What was done.
    pub action: Action,
    /// Who did it.
    pub actor: Actor,
    /// What else is worth knowing.
    pub details: Option<Value>,
}

impl NewAuditEntry {
    /// Makes one without details.
    pub fn new(entity: Entity, entity_id: Uuid, action: Action, actor: Actor) -> Self {
        Self { entity, entity_id, action, actor, details: None }
    }

    /// Adds what else is worth knowing.
    pub fn with_details(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }
}

/// Which entries to list: those that have all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Those about one sort of thing.
    pub entity: Option<Entity>,
    /// Those about one thing.
    pub entity_id: Option<Uuid>,
}

/// What can be done with the audit log: read it, and add to it.
///
/// ```
/// use pointsman::payments::{Action, Actor, AuditEntry, AuditRepository, Entity, Error, NewAuditEntry};
/// use pointsman::prelude::*;
/// use uuid::Uuid;
///
/// async fn remark(conn: &Conn<Write>, id: Uuid, actor: Actor, text: &str) -> Result<AuditEntry, Error> {
///     let entry = NewAuditEntry::new(Entity::Transaction, id, Action::Noted, actor);
///     conn.append(&entry.with_details(text.into())).await
/// }
/// ```
///
/// # Errors
///
/// Every method fails with [`Error::Query`] where the database does, besides what it names itself.
pub trait AuditRepository<I: Intent> {
    /// Lists entries, the latest first.
    ///
    /// # Errors
    ///
    /// [`Error::BadCursor`] where the cursor is of another list.
    fn list_audit(
        &self,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<AuditEntry>, Error>> + Send;

    /// Appends an entry. Inside of a transaction, it is there if the transaction is.
    fn append(&self, entry: &NewAuditEntry) -> impl Future<Output = Result<AuditEntry, Error>> + Send
    where
        I: Writable;
}

impl<I: Intent> AuditRepository<I> for Conn<I> {
    async fn list_audit(&self, filter: &AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>, Error> {
        list(self.as_read(), filter, page).await
    }

    async fn append(&self, entry: &NewAuditEntry) -> Result<AuditEntry, Error>
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
