//! Recorded runs: sessions work while servers fail, and a checker searches the record for violations.
//!
//! * `history`: the record
//! * `checker`: the guarantees, and the violations of a record (pure)
//! * `client`, `worker`: a session, with its token or without, and its random mix of operations
//! * `workload`, `run`: the sessions of a run, and the run when it has ended
//!
//! A seed determines the choices of a run. It does not determine the servers and the scheduler, so a failure is likely
//! to return with its seed, but not certain to.

pub(crate) mod checker;
pub(crate) mod client;
pub(crate) mod history;
pub(crate) mod run;
pub(crate) mod worker;
pub(crate) mod workload;
