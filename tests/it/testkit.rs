//! The test kit against itself: each fault has the effect that it promises.

use pointsman::testkit::Cluster;

#[tokio::test]
async fn a_replica_takes_over_and_the_old_primary_comes_back_as_its_standby() {
    let cluster = Cluster::builder().replicas(2).database("payments").start().await.unwrap();
    let (old, new) = (cluster.primary(), cluster.replica(0));
    old.execute("CREATE TABLE train (number int); INSERT INTO train VALUES (1)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();

    old.kill().await.unwrap();
    new.promote().await.unwrap();
    new.execute("INSERT INTO train VALUES (2)").await.unwrap();
    cluster.replica(1).follow(new).await.unwrap();
    old.rejoin(new).await.unwrap();
    cluster.wait_caught_up().await.unwrap();

    assert_eq!(cluster.current_primary().await.unwrap().name(), "replica-1");
    for server in cluster.servers() {
        assert_eq!(server.query_value("SELECT sum(number) FROM train").await.unwrap(), "3", "{server:?}");
    }
}
