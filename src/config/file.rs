//! Files that a configuration names: how they are read and shown.
//!
//! An issue shows the key and the path, and never the content. A path is shown only if it looks like one, because
//! it may be a URL or a password under the wrong key.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{ConfigIssue, Password};

/// Bytes of the longest URL list or password that is read.
///
/// A larger file is something else.
const SECRET_MAX: u64 = 64 * 1024;

/// Returns the path as an issue shows it.
pub(super) fn shown(path: &Path) -> String {
    let usual = |c: char| c.is_alphanumeric() || "/._-+~, ".contains(c);
    match path.to_str() {
        Some(text) if text.len() <= 4096 && text.chars().all(usual) => text.to_owned(),
        _ => format!("a path of {} bytes with unusual characters", path.as_os_str().len()),
    }
}

/// Returns the path of a secret's file for an issue.
///
/// The text may be the password itself, so it is hidden unless it looks like a path.
fn secret_shown(path: &Path) -> String {
    let text = path.to_str().unwrap_or_default();
    let known_place = || {
        // Neither the root nor the current directory counts: they are above every text.
        path.ancestors().skip(1).filter(|above| above.parent().is_some()).any(Path::is_dir)
    };
    // A single name below the root: words are shown, random characters are not.
    let word = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b"_-.".contains(&b));
    if text.strip_prefix('/').is_some_and(|name| !name.is_empty() && word(name)) || known_place() {
        shown(path)
    } else {
        "a path that is not shown, because none of its directories exists".to_owned()
    }
}

/// Returns the issue of a configuration file that cannot be read.
pub(super) fn unreadable(key: &str, path: &Path, error: &io::Error) -> ConfigIssue {
    // Only the kind, because the message of an error may quote what it read.
    let problem = format!("names {}, which cannot be read ({})", shown(path), error.kind());
    ConfigIssue::new(key, problem, "name a TOML file that this user may read")
}

/// Reads a secret: one password, or the text of URLs.
///
/// Trailing line ends do not count.
pub(super) fn read_secret(key: &str, path: &str) -> Result<SecretString, ConfigIssue> {
    let path = Path::new(path);
    let issue = |problem: String| {
        let remedy =
            "name a file by its absolute path, with nothing in it but the secret, that this user may read";
        ConfigIssue::new(key, format!("names {}, which {problem}", secret_shown(path)), remedy)
    };
    let text = read_text(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => issue("is not UTF-8".to_owned()),
        ErrorKind::FileTooLarge => issue(format!("is larger than {} KiB", SECRET_MAX / 1024)),
        kind => issue(format!("cannot be read ({kind})")),
    })?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(issue("is empty".to_owned())),
        secret => Ok(secret.into()),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    // A pipe would block each reload, and a device may never end.
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !about.is_file() {
        return Err(io::Error::new(ErrorKind::Unsupported, "not a regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(SECRET_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_MAX { Err(ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// Reads a password: one line.
pub(super) fn read_password(key: &str, path: &str) -> Result<Password, ConfigIssue> {
    let password = read_secret(key, path)?;
    if password.expose_secret().chars().any(char::is_control) {
        let problem = format!(
            "names {}, which has several lines or a control character",
            secret_shown(Path::new(path))
        );
        return Err(ConfigIssue::new(key, problem, "write the password alone into it, on one line"));
    }
    Ok(password.expose_secret().into())
}

/// Returns the problem of a PEM file, as far as it shows without TLS.
pub(super) fn pem_problem(path: &Path) -> Option<String> {
    let problem = match fs::read(path) {
        Ok(bytes) if bytes.windows(11).any(|window| window == b"-----BEGIN ") => return None,
        Ok(_) => "has no PEM in it".to_owned(),
        Err(error) => format!("cannot be read ({})", error.kind()),
    };
    Some(format!("names {}, which {problem}", shown(path)))
}
