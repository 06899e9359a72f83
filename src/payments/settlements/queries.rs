//! The statements on settlements that only read.

use uuid::Uuid;

use super::Settlement;
use crate::payments::page::List;
use crate::payments::schema::settlements::{self, asset, created_at, id};
use crate::payments::{Asset, Cursor, Error, Page, PageRequest};
use crate::prelude::*;

pub(super) async fn find(conn: &Conn<Read>, wanted: Uuid) -> Result<Option<Settlement>, Error> {
    let query = settlements::table.find(wanted).select(Settlement::as_select());
    Ok(query.get_result(conn).await.optional()?)
}

pub(super) async fn list(
    conn: &Conn<Read>,
    of: Option<&Asset>,
    page: PageRequest,
) -> Result<Page<Settlement>, Error> {
    let mut query = settlements::table.select(Settlement::as_select()).into_boxed();
    if let Some(of) = of {
        query = query.filter(asset.eq(of));
    }
    if let Some(cursor) = page.after {
        let (time, last) = cursor.time(List::Settlements)?;
        query = query.filter(created_at.le(time)).filter(created_at.lt(time).or(id.lt(last)));
    }
    let query = query.order((created_at.desc(), id.desc())).limit(page.size.rows());
    let rows: Vec<Settlement> = query.load(conn).await?;
    Ok(Page::cut(rows, page.size, |row| Cursor::at_time(List::Settlements, row.created_at, row.id)))
}
