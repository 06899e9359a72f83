//! The `pointsman` program: the payments service, its demonstration and its tools.
//!
//! It uses the library through its public API alone.
//!
//! * `serve`, `migrate`, `replay`, `status`, `config`: one command each
//! * `forget_history`: an operator's command to a running service
//! * `demo`: the service on a temporary cluster with traffic, and with faults on request
//! * `servers`: the servers of a command, either configured or a temporary cluster
//! * `failure`: the end of a command, and its exit code
//! * `duration`, `logging`, `signals`: shared by all of them

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;
use self::logging::LogFormat;

mod config;
#[cfg(feature = "testkit")]
mod demo;
mod duration;
mod failure;
mod forget_history;
mod logging;
mod migrate;
mod replay;
mod serve;
mod servers;
mod signals;
mod status;

/// PostgreSQL primary and read replicas behind Diesel, with compile-time-typed intent.
///
/// The servers are configured with DATABASE_URL and DATABASE_REPLICA_URL (several, separated by commas), or in
/// pointsman.toml. Exit codes: 0 well, 1 failed, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
struct Arguments {
    /// Reads this file instead of pointsman.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The format of the log, which goes to stderr. RUST_LOG selects its content.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the payments service until Ctrl-C or SIGTERM.
    Serve(serve::Arguments),
    /// Serves on a temporary primary and two replicas, with traffic, and prints what to try.
    #[cfg(feature = "testkit")]
    Demo(demo::Arguments),
    /// Applies the pending migrations, on the primary.
    Migrate,
    /// Records a ledger, and compares every balance with what the replicas answer.
    Replay(replay::Arguments),
    /// Shows the state of the nodes.
    Status(status::Arguments),
    /// Clears what a running service knows of identity and timelines, after an operator's decision.
    ForgetHistory(forget_history::Arguments),
    /// Checks the configuration without contacting a server.
    #[command(subcommand)]
    Config(config::Command),
}

fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2 and the usage.
    let arguments = Arguments::parse();
    logging::init(arguments.log_format, matches!(arguments.command, Command::Serve(_)));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(error).report(),
    };
    let file = arguments.config.as_deref();
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Serve(arguments) => serve::run(file, arguments).await,
            #[cfg(feature = "testkit")]
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Migrate => migrate::run(file).await,
            Command::Replay(arguments) => replay::run(file, arguments).await,
            Command::Status(arguments) => status::run(file, arguments).await,
            Command::ForgetHistory(arguments) => forget_history::run(arguments).await,
            Command::Config(command) => config::run(file, command),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
