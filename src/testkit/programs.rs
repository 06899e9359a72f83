//! Finds the server programs of PostgreSQL.

use super::error::{Result, TestkitError};
use super::os_user::{OsUser, finish};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that supports all faults.
const OLDEST: u32 = 14;

/// The folder of PostgreSQL's server programs, and their version.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    folder: PathBuf,
    version: String,
}

impl Programs {
    /// Finds the programs in `folder`, or where systems install them.
    pub(super) fn find(os_user: OsUser, folder: Option<&Path>) -> Result<Self> {
        let candidates = match (folder, std::env::var_os("PG_BIN")) {
            (Some(folder), _) => vec![folder.to_owned()],
            (None, Some(folder)) => vec![PathBuf::from(folder)],
            (None, None) => usual_places(),
        };
        let holds = |folder: &&PathBuf| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
        let Some(folder) = candidates.iter().find(holds) else {
            let shown: Vec<String> = candidates.iter().map(|folder| folder.display().to_string()).collect();
            return Err(TestkitError::ProgramsMissing { searched: shown.join(", ") });
        };
        let said = os_user.run(&folder.join("postgres"), Path::new("/"), &["--version"])?;
        let version = said.split_whitespace().nth(2).unwrap_or("unknown").to_owned();
        if major(&version) < OLDEST {
            return Err(TestkitError::TooOld { found: version });
        }
        Ok(Self { folder: folder.clone(), version })
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// The version as the programs print it, such as `15.14`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }
}

/// Reads `16` from `16.2` and from `16beta1`.
fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Lists the folders that may hold the programs, the most likely first.
fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    // Debian keeps the server programs out of PATH, and `pg_config` knows where they are.
    if let Ok(said) = finish(Path::new("pg_config"), Command::new("pg_config").arg("--bindir").output()) {
        places.push(PathBuf::from(said.trim()));
    }
    let parents = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
    ];
    for (parent, prefix) in parents {
        let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let version = name.to_str()?.strip_prefix(prefix)?.trim_start_matches('@').to_owned();
                Some((major(&version), entry.path().join("bin")))
            })
            .collect();
        found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        places.extend(found.into_iter().map(|(_, folder)| folder).filter(|folder| folder.is_dir()));
    }
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn reads_the_major_version_of_releases_and_betas() {
        assert_eq!(major("15.14"), 15);
        assert_eq!(major("18beta1"), 18);
        assert_eq!(major("unknown"), 0);
    }
}
