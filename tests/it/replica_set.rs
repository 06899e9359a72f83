//! The replica set on a real cluster: who serves what, and the second layer of the read-only promise.

use diesel::sql_types::Text;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::{Role, assume_read_only};

use crate::support::connect;

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    setting: String,
}

#[tokio::test]
async fn reads_go_to_replicas_and_writes_to_the_primary() {
    let cluster = Cluster::builder().replicas(2).start().await.expect("a cluster");
    let set = connect(&cluster).await;
    let mut served = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let conn = set.read().await.expect("a read connection");
        assert_eq!(conn.role(), Role::Replica);
        served.insert(conn.node().to_owned());
        let recovery: Setting =
            assume_read_only(diesel::sql_query("SELECT pg_is_in_recovery()::text AS setting"))
                .get_result(&conn)
                .await
                .expect("a read");
        assert_eq!(recovery.setting, "true");
    }
    assert_eq!(served.len(), 2, "both replicas serve: {served:?}");
    let conn = set.write().await.expect("a write connection");
    assert_eq!((conn.role(), conn.node()), (Role::Primary, set.config().nodes()[0].name()));
    diesel::sql_query("CREATE TABLE t (n int)").execute(&conn).await.expect("a write");
    drop(conn);
    set.close().await.expect("everything was returned");
}
