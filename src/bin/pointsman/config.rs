//! `pointsman config`.

use std::path::Path;

use pointsman::Config;

use super::failure::Outcome;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Checks the configuration, and prints every issue in it.
    Check,
    /// Prints the configuration in effect, without passwords.
    Show,
}

pub(super) fn run(file: Option<&Path>, command: Command) -> Outcome {
    let config = file.map_or_else(Config::from_env, Config::from_file)?;
    match command {
        Command::Check => println!("valid: {config}"),
        // Passwords have a type that does not print.
        Command::Show => println!("{config:#?}"),
    }
    Ok(())
}
