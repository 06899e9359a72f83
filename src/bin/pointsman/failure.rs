//! The end of a command, and its exit code.

use std::process::ExitCode;

use pointsman::ConfigError;

/// A command that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration or the arguments are wrong; nothing was tried.
    Usage(anyhow::Error),
    /// The command failed on the way.
    Failed(anyhow::Error),
    /// The command failed, and has already printed why.
    Told,
}

impl Failure {
    pub(super) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    /// Prints the error with its causes, and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (code, error) = match self {
            Self::Usage(error) => (2, error),
            Self::Failed(error) => (1, error),
            Self::Told => return ExitCode::from(1),
        };
        eprintln!("error: {}", words(&error));
        ExitCode::from(code)
    }
}

/// Returns the error and its causes, each once.
///
/// Some errors repeat their cause.
fn words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// The result of a command.
pub(super) type Outcome<T = ()> = Result<T, Failure>;
