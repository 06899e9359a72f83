//! The error of a test that uses `?`: what failed, why, and in which line.

use std::fmt;
use std::panic::Location;

pub(crate) type TestResult<T = ()> = Result<T, TestError>;

/// Any error, with its causes and the line of the `?`.
pub(crate) struct TestError {
    message: String,
    caller: &'static Location<'static>,
}

impl<E: std::error::Error> From<E> for TestError {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { message, caller: Location::caller() }
    }
}

/// The harness prints an error with `Debug`.
impl fmt::Debug for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at {}", self.message, self.caller)
    }
}
