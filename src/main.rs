//! The `pointsman` program: parses its arguments and calls the library.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
