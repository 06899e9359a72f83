//! The statements on transactions that write.
//!
//! Two deliveries of one callback at the same time meet at the unique keys. The second waits at the server until the
//! first has committed, and then finds its result. Each takes the provider's id first and the idempotency key second,
//! so no two can deadlock.

use chrono::Utc;
use diesel::upsert::on_constraint;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{NewCallback, NewTransaction, Recorded, Transaction, queries};
use crate::payments::schema::{callbacks, transactions};
use crate::payments::{Action, Actor, Conflict, Entity, Error, NewAuditEntry, Status, audit, sql};
use crate::prelude::*;

pub(in crate::payments) async fn record(
    conn: &Conn<Write>,
    new: &NewTransaction,
) -> Result<Transaction, Error> {
    insert(conn, new).await?.ok_or_else(|| id_is_taken(new).into())
}

fn id_is_taken(new: &NewTransaction) -> Conflict {
    Conflict::ProviderId { provider: new.provider.clone(), provider_id: new.provider_id.clone() }
}

/// Inserts a transaction, unless the provider already has one of that id.
async fn insert(conn: &Conn<Write>, new: &NewTransaction) -> Result<Option<Transaction>, Error> {
    let occurred_at = new.occurred_at.unwrap_or_else(Utc::now);
    if !sql::STORABLE.contains(&occurred_at.timestamp_micros()) {
        return Err(Error::TimeOutOfRange(occurred_at));
    }
    let values = (
        transactions::id.eq(Uuid::now_v7()),
        transactions::account.eq(&new.account),
        transactions::amount.eq(&new.amount),
        transactions::asset.eq(&new.asset),
        transactions::kind.eq(new.kind),
        transactions::status.eq(new.status),
        transactions::provider.eq(&new.provider),
        transactions::provider_id.eq(&new.provider_id),
        transactions::metadata.eq(new.metadata.clone().map(Value::Object)),
        transactions::occurred_at.eq(occurred_at),
    );
    // Named, so that any other unique key that fails is an error and not "taken".
    let insert = diesel::insert_into(transactions::table)
        .values(values)
        .on_conflict(on_constraint("transactions_provider_id_key"))
        .do_nothing()
        .returning(Transaction::as_returning());
    Ok(insert.get_result(conn).await.optional()?)
}

/// Records a callback. It needs a transaction around it.
pub(in crate::payments) async fn callback(
    tx: &Conn<Write>,
    callback: &NewCallback,
) -> Result<Recorded, Error> {
    let new = &callback.transaction;
    let (recorded, is_new) = match insert(tx, new).await? {
        Some(created) => (created, true),
        None => (told_before(tx, callback).await?, false),
    };
    let request = canonical(callback);
    let values = (
        callbacks::provider.eq(&new.provider),
        callbacks::idempotency_key.eq(&callback.key),
        callbacks::transaction_id.eq(recorded.id),
        callbacks::request_digest.eq(sql::sha256(request.as_bytes())),
    );
    let insert = diesel::insert_into(callbacks::table)
        .values(values)
        .on_conflict((callbacks::provider, callbacks::idempotency_key))
        .do_nothing();
    if insert.execute(tx).await? == 0 {
        return match is_repetition(tx, callback, &request, &recorded).await? {
            true => Ok(Recorded::Duplicate(recorded)),
            false => Err(key_is_taken(callback).into()),
        };
    }
    if is_new { Ok(Recorded::Created(recorded)) } else { follow(tx, recorded, new).await }
}

/// Moves a known transaction to the status that its provider reports.
async fn follow(tx: &Conn<Write>, known: Transaction, new: &NewTransaction) -> Result<Recorded, Error> {
    let (id, to) = (known.id, new.status);
    let (from, settlement) = lock(tx, id).await?;
    // Messages may arrive out of order.
    if from == to || to.leads_to(from) {
        return Ok(Recorded::Duplicate(Transaction { status: from, settlement_id: settlement, ..known }));
    }
    if !from.leads_to(to) {
        return Err(Error::IllegalTransition { from, to });
    }
    if let Some(settlement) = settlement {
        return Err(Error::Settled { id, settlement });
    }
    Ok(Recorded::Advanced(set_status(tx, id, from, to, &new.provider.clone().into()).await?))
}

/// Finds the transaction of a repeated callback.
async fn told_before(tx: &Conn<Write>, callback: &NewCallback) -> Result<Transaction, Error> {
    let new = &callback.transaction;
    let known = queries::find_by_provider_id(tx.as_read(), &new.provider, &new.provider_id).await?;
    match known {
        Some(known) if known.is_told_by(new) => Ok(known),
        // This also covers a key used again with the same id and another amount, because the id is compared first.
        _ => Err(id_is_taken(new).into()),
    }
}

/// Returns `true` if the callback that has the key is this one.
async fn is_repetition(
    tx: &Conn<Write>,
    callback: &NewCallback,
    request: &str,
    recorded: &Transaction,
) -> QueryResult<bool> {
    let provider = &callback.transaction.provider;
    let query = callbacks::table
        .find((provider, &callback.key))
        .select((callbacks::transaction_id, callbacks::request_digest.eq(sql::sha256(request.as_bytes()))));
    let (transaction, same): (Uuid, bool) = query.get_result(tx).await?;
    Ok(same && transaction == recorded.id)
}

fn key_is_taken(callback: &NewCallback) -> Conflict {
    Conflict::IdempotencyKey { provider: callback.transaction.provider.clone(), key: callback.key.clone() }
}

/// Writes the content of a callback in one way, whatever the order of its fields.
fn canonical(callback: &NewCallback) -> String {
    sorted(&json!(callback.transaction)).to_string()
}

/// Sorts the keys of all objects.
///
/// `serde_json` keeps them in the order of arrival if any crate of the program enables `preserve_order`.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(key, field)| (key.clone(), sorted(field))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().collect())
        }
        other => other.clone(),
    }
}

/// Moves a transaction forward. It needs a transaction around it.
pub(in crate::payments) async fn advance(
    tx: &Conn<Write>,
    id: Uuid,
    to: Status,
    actor: &Actor,
) -> Result<Transaction, Error> {
    let (from, settlement) = lock(tx, id).await?;
    if !from.may_become(to) {
        return Err(Error::IllegalTransition { from, to });
    }
    if let Some(settlement) = settlement {
        return Err(Error::Settled { id, settlement });
    }
    set_status(tx, id, from, to, actor).await
}

/// Locks a transaction, so that its status stays until it is changed.
async fn lock(tx: &Conn<Write>, id: Uuid) -> Result<(Status, Option<Uuid>), Error> {
    let query = transactions::table
        .find(id)
        .select((transactions::status, transactions::settlement_id))
        .for_no_key_update();
    let found: Option<(Status, Option<Uuid>)> = query.get_result(tx).await.optional()?;
    found.ok_or(Error::NotFound { entity: Entity::Transaction, id })
}

/// Changes the status of a locked transaction, with an entry in the audit log.
async fn set_status(
    tx: &Conn<Write>,
    id: Uuid,
    from: Status,
    to: Status,
    actor: &Actor,
) -> Result<Transaction, Error> {
    let update = diesel::update(transactions::table.find(id))
        .set((transactions::status.eq(to), transactions::updated_at.eq(diesel::dsl::now)))
        .returning(Transaction::as_returning());
    let entry = NewAuditEntry::new(Entity::Transaction, id, Action::Advanced, actor.clone())
        .with_details(json!({ "from": from, "to": to }));
    let (changed, _) =
        futures_util::try_join!(async { Ok(update.get_result(tx).await?) }, audit::append(tx, &entry),)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b":[{"y":1,"x":2}],"a":null}"#).unwrap();
        assert_eq!(sorted(&one).to_string(), r#"{"a":null,"b":[{"x":2,"y":1}]}"#);
    }
}
