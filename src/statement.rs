//! The statements that each intent permits.
//!
//! [`ReadOnly`] marks the statements that only read, and [`Permits`] relates them to an [`Intent`](crate::Intent). This
//! is the only file that names Diesel's types of `SELECT` statements.
//!
//! **What the type proves.** A statement that is [`ReadOnly`] by an implementation in this crate was built by Diesel as
//! a `SELECT` without a locking clause at its top.
//!
//! **What only the server can reject.** A function that such a `SELECT` calls may write (`nextval`, or a user-defined
//! one), and a fragment or raw SQL may contain any statement. So the sessions of the read pools are read-only at the
//! server too, and reject changes of tables with SQLSTATE 25006.
//!
//! * [`assume_read_only`]: the explicit adapter for raw SQL
//! * [`CombineDsl`], [`SetOperation`]: `UNION`, `INTERSECT` and `EXCEPT`, whose type Diesel keeps private

use diesel::query_builder::{BoxedSelectStatement, SelectStatement};

pub use self::assume_read_only::{AssumeReadOnly, assume_read_only};
pub use self::set_operation::{CombineDsl, SetOperation};
use crate::{Read, Write};

mod assume_read_only;
mod set_operation;

/// A statement that only reads.
///
/// It applies to a `SELECT` without a locking clause, also boxed, and to the results of the adapters
/// [`assume_read_only`] and [`CombineDsl`]. `FOR UPDATE`, `FOR SHARE` and their relatives take locks, which a standby
/// rejects, so they are not `ReadOnly`.
///
/// # What it does not say
///
/// The type shows how the statement was built, not the effects of its text. A function or a fragment in the `SELECT`
/// may do anything. If it changes tables or sequences, the read-only session rejects that. The session does **not**
/// reject
///
/// * large objects (`lo_create`, `lo_put`, `lo_unlink` and their relatives), on a primary: committed data
/// * `dblink` and foreign tables, on any node: they write in another session
/// * `pg_notify`, `pg_logical_emit_message`, `pg_current_xact_id`, and maintenance of indexes that the role owns, on a
///   primary
/// * advisory locks, `pg_cancel_backend`, `pg_terminate_backend`, `pg_export_snapshot`, on any node
/// * SQL that makes its session read-write first (`set_config`)
///
/// Privileges stop each of them: [the guide](crate::guide::deployment#roles-and-privileges) has the statements.
///
/// The trait is open. A query type of the program, such as a pagination wrapper, opts in with one line:
///
/// ```
/// use pointsman::prelude::*;
///
/// /// Adds the number of all rows to each row.
/// #[derive(diesel::query_builder::QueryId)]
/// struct Counted<Q> {
///     query: Q,
/// }
///
/// impl<Q: ReadOnly> ReadOnly for Counted<Q> {}
/// ```
#[diagnostic::on_unimplemented(
    message = "this statement is not known to only read, so a `Conn<Read>` cannot run it",
    label = "only a plain `SELECT` without a lock may run here",
    note = "if it writes or locks rows: check out a `Conn<Write>` with `ReplicaSet::write`, because a `Conn<Read>` may be served by a replica",
    note = "if it only reads: for `a.union(b)` import `pointsman::CombineDsl` (it is in `pointsman::prelude`) in place of Diesel's, put `assume_read_only(…)` around raw SQL, or write `impl ReadOnly for …` for a query type of your own"
)]
pub trait ReadOnly {}

// The ninth parameter, the locking clause, has its default: none.
impl<F, S, D, W, O, LOf, G, H> ReadOnly for SelectStatement<F, S, D, W, O, LOf, G, H> {}
impl<ST, QS, DB, GB> ReadOnly for BoxedSelectStatement<'_, ST, QS, DB, GB> {}
impl<T: ReadOnly + ?Sized> ReadOnly for &T {}

/// The relation between an intent and the statements that it may run.
///
/// [`Write`] permits all, [`Read`] those that are [`ReadOnly`]. It is the bound of every method of
/// [`RunQueryDsl`](crate::RunQueryDsl). In a generic function that runs a statement it is given, `I: Permits<Q>` is the
/// bound as well:
///
/// ```
/// use pointsman::Permits;
/// use pointsman::prelude::*;
///
/// fn permitted<I: Intent, Q>(_conn: &Conn<I>, _query: &Q)
/// where
///     I: Permits<Q>,
/// {
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a `Conn<{Self}>` cannot run this statement",
    label = "`{Self}` is not known to permit it",
    note = "in a function that is generic over the intent, run reads on `conn.as_read()`, and writes on `conn.as_write()` with the bound `Writable`"
)]
pub trait Permits<Q: ?Sized>: crate::Intent + sealed::Permits<Q> {}

impl<Q: ?Sized> Permits<Q> for Write {}
impl<Q: ?Sized> Permits<Q> for Read where sealed::Statement<Q>: sealed::ReadsOnly {}

#[expect(unnameable_types, reason = "it seals the trait, so no other crate may name it")]
mod sealed {
    use super::{Read, ReadOnly, Write};

    /// Keeps [`Permits`](super::Permits) closed.
    ///
    /// Otherwise, any crate could implement it for its statements.
    pub trait Permits<Q: ?Sized> {}

    impl<Q: ?Sized> Permits<Q> for Write {}
    impl<Q: ?Sized> Permits<Q> for Read where Statement<Q>: ReadsOnly {}

    /// A statement, by its type.
    #[derive(Debug)]
    pub struct Statement<Q: ?Sized>(std::marker::PhantomData<Q>);

    /// The property of a [`Statement`] that [`ReadOnly`] is for its type.
    ///
    /// The compiler's error is then about a type of this crate. Diesel has two types of one name for
    /// `sql_query(…).bind(…)`, and rustc would otherwise claim that there are two versions of Diesel.
    #[diagnostic::on_unimplemented(
        message = "this statement is not known to only read, so a `Conn<Read>` cannot run it",
        label = "only a plain `SELECT` without a lock may run here",
        note = "if it writes or locks rows: check out a `Conn<Write>` with `ReplicaSet::write`, because a `Conn<Read>` may be served by a replica",
        note = "if it only reads: for `a.union(b)` import `pointsman::CombineDsl` (it is in `pointsman::prelude`) in place of Diesel's, put `assume_read_only(…)` around raw SQL, or write `impl ReadOnly for …` for a query type of your own"
    )]
    pub trait ReadsOnly {}

    #[diagnostic::do_not_recommend]
    impl<Q: ReadOnly + ?Sized> ReadsOnly for Statement<Q> {}
}
