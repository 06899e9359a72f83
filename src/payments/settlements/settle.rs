//! The statements on settlements that write.

use chrono::{DateTime, Utc};
use diesel::sql_types::Timestamptz;
use serde_json::json;
use uuid::Uuid;

use super::{Settlement, SettlementStatus, Settling};
use crate::payments::schema::{settlements, transactions};
use crate::payments::{Action, Actor, Amount, Balance, Entity, Error, Kind, NewAuditEntry, audit, sql};
use crate::prelude::*;

/// The columns of a transaction that a settlement needs.
type Taken = (Uuid, Kind, Amount, DateTime<Utc>);

/// Settles. It needs a transaction around it.
pub(in crate::payments) async fn settle(
    tx: &Conn<Write>,
    settling: &Settling,
) -> Result<Option<Settlement>, Error> {
    let taken = take(tx, settling).await?;
    let Some(settlement) = sum_up(settling, &taken) else { return Ok(None) };
    let insert =
        diesel::insert_into(settlements::table).values(&settlement).returning(Settlement::as_returning());
    let settlement: Settlement = insert.get_result(tx).await?;
    let ids: Vec<Uuid> = taken.iter().map(|(id, ..)| *id).collect();
    let mark = diesel::update(transactions::table.filter(transactions::id.eq_any(&ids)))
        .filter(transactions::settlement_id.is_null())
        .set((transactions::settlement_id.eq(settlement.id), transactions::updated_at.eq(diesel::dsl::now)));
    let entry =
        NewAuditEntry::new(Entity::Settlement, settlement.id, Action::Settled, settling.actor.clone())
            .with_details(json!({
                "asset": settlement.asset,
                "total": settlement.total,
                "transactions": settlement.transaction_count,
            }));
    let (marked, _) = futures_util::try_join!(
        async { Ok::<_, Error>(mark.execute(tx).await?) },
        audit::append(tx, &entry),
    )?;
    // The locks ensure it. Should they ever fail to, nothing of this settlement may stay.
    if marked != ids.len() {
        let message = "a transaction that was locked for settlement had been settled: nothing was settled";
        return Err(diesel::result::Error::QueryBuilderError(message.into()).into());
    }
    Ok(Some(settlement))
}

/// Locks the transactions to settle, the oldest first, and skips locked ones.
async fn take(tx: &Conn<Write>, settling: &Settling) -> QueryResult<Vec<Taken>> {
    // Diesel does not allow a locking clause on a boxed statement, so "all" is the last time that can be stored.
    let up_to = sql::storable(settling.up_to.unwrap_or(DateTime::<Utc>::MAX_UTC));
    transactions::table
        .filter(transactions::asset.eq(&settling.asset))
        .filter(transactions::status.eq(sql::Completed))
        .filter(transactions::settlement_id.is_null())
        .filter(transactions::occurred_at.le(up_to))
        .order((transactions::occurred_at, transactions::id))
        .limit(settling.limit.into())
        .select((transactions::id, transactions::kind, transactions::amount, transactions::occurred_at))
        .for_update()
        .skip_locked()
        .load(tx)
        .await
}

/// Returns the settlement of transactions sorted by time, if there are any.
fn sum_up(settling: &Settling, taken: &[Taken]) -> Option<Settlement> {
    let (.., period_start) = *taken.first()?;
    let (.., period_end) = *taken.last()?;
    Some(Settlement {
        id: Uuid::now_v7(),
        asset: settling.asset.clone(),
        total: taken.iter().map(|(_, kind, amount, _)| (*kind, amount)).sum::<Balance>(),
        transaction_count: taken.len() as i64,
        status: SettlementStatus::Open,
        period_start,
        period_end,
        created_at: Utc::now(),
        paid_at: None,
    })
}

/// Marks a settlement as paid. It needs a transaction around it.
pub(in crate::payments) async fn mark_paid(
    tx: &Conn<Write>,
    id: Uuid,
    actor: &Actor,
) -> Result<Settlement, Error> {
    let query = settlements::table.find(id).select(Settlement::as_select()).for_no_key_update();
    let found: Option<Settlement> = query.get_result(tx).await.optional()?;
    let settlement = found.ok_or(Error::NotFound { entity: Entity::Settlement, id })?;
    if settlement.status == SettlementStatus::Paid {
        return Ok(settlement);
    }
    let update = diesel::update(settlements::table.find(id))
        .set((
            settlements::status.eq(SettlementStatus::Paid),
            settlements::paid_at.eq(diesel::dsl::now.into_sql::<Timestamptz>().nullable()),
        ))
        .returning(Settlement::as_returning());
    let entry = NewAuditEntry::new(Entity::Settlement, id, Action::Paid, actor.clone());
    let (paid, _) = futures_util::try_join!(
        async { Ok::<_, Error>(update.get_result(tx).await?) },
        audit::append(tx, &entry),
    )?;
    Ok(paid)
}
