//! The cases that are compared.

use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::pooled_connection::RecyclingMethod;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use pointsman::testkit::{Cluster, always_ask};
use pointsman::{CausalToken, Conn, ReplicaSet, WriteOptions};
use tokio::sync::Mutex;

use super::measure::{Case, Contender, timed};
use super::setup::{self, Bb8, Error, ROWS, Result, User, users};

/// A connection that the tasks hold one after the other.
type Held<C> = Arc<Mutex<C>>;

/// A contender whose batch runs a block with the values it needs in scope.
macro_rules! contender {
    ($name:expr, $held:ident, |$conn:ident, $n:ident| $body:expr) => {{
        let held = Arc::clone($held);
        Contender {
            name: $name,
            batch: Box::new(move |$n| {
                let held = Arc::clone(&held);
                async move {
                    #[allow(unused_mut, reason = "not every operation needs it exclusively")]
                    let mut guard = held.lock().await;
                    #[allow(unused_mut, reason = "not every operation needs it exclusively")]
                    let mut $conn = &mut *guard;
                    $body
                }
                .boxed()
            }),
        }
    }};
    ($name:expr, of $pool:ident, |$n:ident| $body:expr) => {{
        let pool = $pool.clone();
        Contender {
            name: $name,
            batch: Box::new(move |$n| {
                let $pool = pool.clone();
                async move { $body }.boxed()
            }),
        }
    }};
}

fn anyone() -> i32 {
    fastrand::i32(1..=ROWS)
}

/// All connections and pools.
pub(crate) struct Field {
    bare: Held<AsyncPgConnection>,
    again: Held<AsyncPgConnection>,
    bare_primary: Held<AsyncPgConnection>,
    read: Held<Conn<pointsman::Read>>,
    write: Held<Conn<pointsman::Write>>,
    fast: Bb8,
    verified: Bb8,
    /// Over the same replica as the others.
    set: ReplicaSet,
    /// Over two replicas, so that there is a choice.
    choice: ReplicaSet,
    /// A position that the replica has reached.
    token: CausalToken,
}

impl Field {
    pub(crate) async fn new(cluster: &Cluster) -> Result<Self> {
        let urls = cluster.urls();
        let set = setup::set(cluster, 1).await?;
        let held = |url| async move {
            Ok::<_, Error>(Arc::new(Mutex::new(AsyncPgConnection::establish(url).await?)))
        };
        Ok(Self {
            bare: held(&urls[1]).await?,
            again: held(&urls[1]).await?,
            bare_primary: held(&urls[0]).await?,
            // From a separate set, so that the compared pools have the same size.
            read: Arc::new(Mutex::new(setup::set(cluster, 1).await?.read().await?)),
            write: Arc::new(Mutex::new(set.write().await?)),
            fast: setup::bb8(&urls[1], RecyclingMethod::Fast).await?,
            verified: setup::bb8(&urls[1], RecyclingMethod::Verified).await?,
            choice: setup::set(cluster, 2).await?,
            token: token(cluster, &set).await?,
            set,
        })
    }

    pub(crate) fn cases(&self) -> Vec<Case> {
        let mut cases = vec![self.one_row(), self.many_rows(), self.pipeline()];
        cases.extend([1, 8, 32].map(|tasks| self.checkout_and_query(tasks)));
        cases.extend([1, 8].map(|tasks| self.causal(tasks)));
        cases.extend([self.checkout(), self.transaction(), self.write_transaction()]);
        cases.extend([1, 8].map(|tasks| self.run_write(tasks)));
        cases
    }

    /// A token asks before the read if it is not known to be satisfied; a session asks behind each read.
    fn causal(&self, tasks: usize) -> Case {
        let Self { set, token, .. } = self;
        let satisfied = pointsman::ReadOptions::new().after(token);
        let session = set.session();
        let with_token = |name, options: pointsman::ReadOptions| {
            let reader = (set.clone(), options);
            contender!(name, of reader, |n| timed!(n, {
                let (set, options) = &reader;
                set.run_read_with(options, async |conn| {
                    let query = users::table.find(anyone());
                    let user = pointsman::RunQueryDsl::first::<User>(query, conn).await;
                    user.map_err(pointsman::Error::from)
                })
                .await?;
            }))
        };
        Case {
            name: format!("a read with a causal token; {tasks} at once"),
            tasks,
            batch: if tasks == 1 { 20 } else { 5 },
            per_operation: 1,
            contenders: vec![
                with_token("run_read(), no token", pointsman::ReadOptions::new()),
                with_token("a token that is satisfied", satisfied.clone()),
                with_token("a token that is checked in flight", always_ask(satisfied)),
                contender!("a session: a question behind each read", of session, |n| timed!(n, {
                    session
                        .run_read(async |conn| {
                            let query = users::table.find(anyone());
                            let user = pointsman::RunQueryDsl::first::<User>(query, conn).await;
                            user.map_err(pointsman::Error::from)
                        })
                        .await?;
                })),
            ],
        }
    }

    fn one_row(&self) -> Case {
        let Self { bare, again, read, .. } = self;
        let plain = |name, held: &Held<AsyncPgConnection>| {
            contender!(name, held, |conn, n| timed!(n, {
                let query = users::table.find(anyone());
                diesel_async::RunQueryDsl::first::<User>(query, &mut conn).await?;
            }))
        };
        Case {
            name: "one row, connection held".to_owned(),
            tasks: 1,
            batch: 20,
            per_operation: 1,
            contenders: vec![
                plain("bare AsyncPgConnection", bare),
                plain("another one (control)", again),
                contender!("Conn<Read>", read, |conn, n| timed!(n, {
                    pointsman::RunQueryDsl::first::<User>(users::table.find(anyone()), conn).await?;
                })),
            ],
        }
    }

    fn many_rows(&self) -> Case {
        let Self { bare, read, .. } = self;
        Case {
            name: "1000 rows, connection held".to_owned(),
            tasks: 1,
            batch: 5,
            per_operation: 1,
            contenders: vec![
                contender!("bare AsyncPgConnection", bare, |conn, n| timed!(n, {
                    diesel_async::RunQueryDsl::load::<User>(users::table, &mut conn).await?;
                })),
                contender!("Conn<Read>", read, |conn, n| timed!(n, {
                    pointsman::RunQueryDsl::load::<User>(users::table, conn).await?;
                })),
            ],
        }
    }

    fn pipeline(&self) -> Case {
        let Self { bare, read, .. } = self;
        Case {
            name: "10 queries pipelined, connection held".to_owned(),
            tasks: 1,
            batch: 20,
            per_operation: 1,
            contenders: vec![
                contender!("bare AsyncPgConnection", bare, |conn, n| timed!(n, {
                    let conn = &*conn;
                    let queries = (0..10).map(|_| async move {
                        let query = users::table.find(anyone());
                        diesel_async::RunQueryDsl::first::<User>(query, &mut &*conn).await
                    });
                    try_join_all(queries).await?;
                })),
                contender!("Conn<Read>", read, |conn, n| timed!(n, {
                    let conn = &*conn;
                    let queries = (0..10).map(|_| async move {
                        pointsman::RunQueryDsl::first::<User>(users::table.find(anyone()), conn).await
                    });
                    try_join_all(queries).await?;
                })),
            ],
        }
    }

    fn checkout_and_query(&self, tasks: usize) -> Case {
        let Self { fast, verified, set, .. } = self;
        let pooled = |name, pool: &Bb8| {
            contender!(name, of pool, |n| timed!(n, {
                let mut conn = pool.get().await?;
                let query = users::table.find(anyone());
                diesel_async::RunQueryDsl::first::<User>(query, &mut conn).await?;
            }))
        };
        Case {
            name: format!("checkout, one row, return; {tasks} at once"),
            tasks,
            batch: if tasks == 1 { 20 } else { 5 },
            per_operation: 1,
            contenders: vec![
                pooled("bb8, RecyclingMethod::Fast", fast),
                pooled("bb8, Verified (its default)", verified),
                contender!("read()", of set, |n| timed!(n, {
                    let conn = set.read().await?;
                    pointsman::RunQueryDsl::first::<User>(users::table.find(anyone()), &conn).await?;
                })),
                contender!("run_read()", of set, |n| timed!(n, {
                    set.run_read(async |conn| {
                        let query = users::table.find(anyone());
                        let user = pointsman::RunQueryDsl::first::<User>(query, conn).await;
                        user.map_err(pointsman::Error::from)
                    })
                    .await?;
                })),
            ],
        }
    }

    fn checkout(&self) -> Case {
        const TIMES: u32 = 100;
        let Self { fast, set, choice, .. } = self;
        let pooled = |name, pool: &Bb8| {
            contender!(name, of pool, |n| timed!(n, for _ in 0..TIMES {
                pool.get().await?;
            }))
        };
        let read = |name, set: &ReplicaSet| {
            contender!(name, of set, |n| timed!(n, for _ in 0..TIMES {
                set.read().await?;
            }))
        };
        Case {
            name: "checkout and return alone".to_owned(),
            tasks: 1,
            batch: 1,
            per_operation: TIMES,
            contenders: vec![
                pooled("bb8, RecyclingMethod::Fast", fast),
                read("read(), one replica", set),
                read("read(), two replicas", choice),
                contender!("write()", of set, |n| timed!(n, for _ in 0..TIMES {
                    set.write().await?;
                })),
            ],
        }
    }

    fn transaction(&self) -> Case {
        let Self { bare, read, .. } = self;
        Case {
            name: "transaction of one query, on a replica".to_owned(),
            tasks: 1,
            batch: 20,
            per_operation: 1,
            contenders: vec![
                contender!("bare AsyncPgConnection", bare, |conn, n| timed!(n, {
                    conn.transaction(async |tx| {
                        diesel_async::RunQueryDsl::first::<User>(users::table.find(anyone()), tx).await
                    })
                    .await?;
                })),
                contender!("Conn<Read>", read, |conn, n| timed!(n, {
                    conn.transaction(async |tx| {
                        pointsman::RunQueryDsl::first::<User>(users::table.find(anyone()), tx).await
                    })
                    .await?;
                })),
            ],
        }
    }

    fn write_transaction(&self) -> Case {
        let Self { bare_primary, write, .. } = self;
        Case {
            name: "transaction of one update, on the primary".to_owned(),
            tasks: 1,
            batch: 20,
            per_operation: 1,
            contenders: vec![
                contender!("bare AsyncPgConnection", bare_primary, |conn, n| timed!(n, {
                    conn.transaction(async |tx| {
                        let update = diesel::update(users::table.find(1)).set(users::name.eq("Ada"));
                        diesel_async::RunQueryDsl::execute(update, tx).await
                    })
                    .await?;
                })),
                contender!("Conn<Write>", write, |conn, n| timed!(n, {
                    conn.transaction(async |tx| {
                        let update = diesel::update(users::table.find(1)).set(users::name.eq("Ada"));
                        pointsman::RunExecuteDsl::execute(update, tx).await
                    })
                    .await?;
                })),
            ],
        }
    }
}

impl Field {
    /// The note on a transaction that takes effect once comes with its statement.
    fn run_write(&self, tasks: usize) -> Case {
        let with = |name, options: WriteOptions| {
            let writer = (self.set.clone(), options);
            contender!(name, of writer, |n| timed!(n, {
                let (set, options) = &writer;
                set.run_write_with(options, async |tx| {
                    // Each task has its own row most of the time, so that they do not wait for each other's locks.
                    let update = diesel::update(users::table.find(anyone())).set(users::name.eq("Ada"));
                    let updated = pointsman::RunExecuteDsl::execute(update, tx).await;
                    updated.map_err(pointsman::Error::from)
                })
                .await?;
            }))
        };
        Case {
            name: format!("run_write of one update; {tasks} at once"),
            tasks,
            batch: if tasks == 1 { 20 } else { 5 },
            per_operation: 1,
            contenders: vec![
                with("run_write()", WriteOptions::new()),
                with("another one (control)", WriteOptions::new()),
                with("exactly_once()", WriteOptions::new().exactly_once()),
            ],
        }
    }
}

/// A token of a write that all replicas have.
async fn token(cluster: &Cluster, set: &ReplicaSet) -> Result<CausalToken> {
    let session = set.session();
    let update = diesel::update(users::table.find(1)).set(users::name.eq("Ada"));
    pointsman::RunExecuteDsl::execute(update, &session.write().await?).await?;
    cluster.wait_caught_up().await?;
    session.token().ok_or_else(|| "a session that has written has a token".into())
}
