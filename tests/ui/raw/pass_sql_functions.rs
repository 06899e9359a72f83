//! SQL functions, fragments and raw SQL with `assume_read_only`.

use diesel::dsl::sql;
use diesel::sql_types::{BigInt, Bool, Integer, Text};
use pointsman::assume_read_only;
use pointsman::prelude::*;
use fixture::{Count, users};

diesel::define_sql_function! {
    fn lower(x: Text) -> Text;
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn coalesce<T: diesel::sql_types::SqlType + diesel::sql_types::SingleValue>(
        x: diesel::sql_types::Nullable<T>,
        y: T,
    ) -> T;
}

pub async fn own_function(conn: &Conn<Read>) -> QueryResult<Vec<(String, String)>> {
    users::table
        .filter(lower(users::name).eq("a"))
        .select((lower(users::name), coalesce(users::city, "nowhere")))
        .load(conn)
        .await
}

pub async fn fragment(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table
        .filter(sql::<Bool>("length(name) > ").bind::<Integer, _>(3))
        .select(sql::<Integer>("length(name)"))
        .load(conn)
        .await
}

pub async fn raw(conn: &Conn<Read>) -> QueryResult<i64> {
    let query = diesel::sql_query("SELECT $1 AS count").bind::<BigInt, _>(1);
    let row: Count = assume_read_only(query).get_result(conn).await?;
    Ok(row.count)
}

pub async fn raw_rows(conn: &mut Conn<Read>) -> QueryResult<Vec<Count>> {
    conn.transaction(async |tx| {
        assume_read_only(diesel::sql_query("SELECT count(*) FROM users")).execute(tx).await?;
        assume_read_only(diesel::sql_query("SELECT count(*) FROM users")).load(tx).await
    })
    .await
}
