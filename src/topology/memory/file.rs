//! The file of a memory. The functions block, so they run on a thread for that.
//!
//! The file is replaced as a whole: a new file is written beside it, brought to the disk and renamed, and then the
//! folder is brought to the disk. So a program that is killed leaves the old content or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::plan::{Step, plan};
use super::{Memory, Remembered};

pub(crate) use super::plan::{Found, Kept};

/// Bytes of the largest memory file that is read.
///
/// The file of a large set has a few kilobytes.
const SIZE_MAX: u64 = 256 * 1024;

/// The outcome of an update of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The content that this program knows the file to have.
    pub(crate) own: Option<Memory>,
    /// The kept file that was replaced: its path and the reason.
    pub(crate) kept: Option<(PathBuf, Kept)>,
}

/// Reads a memory file.
pub(crate) fn read(path: &Path) -> Found {
    match content(path) {
        Ok(bytes) => Found::of(std::str::from_utf8(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Found::Missing,
        Err(error) => Found::Untouchable(format!("it cannot be read: {error}")),
    }
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a plain file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(bytes)
}

/// Brings a memory file up to date.
///
/// `own` is the content if this program wrote or read the file last. `forgot` is `true` if the set has forgotten
/// something since.
///
/// # Errors
///
/// Returns an error if the file cannot be written, or is left alone.
pub(crate) fn update(
    path: &Path,
    own: Option<&Memory>,
    wanted: &Remembered,
    forgot: bool,
) -> io::Result<Done> {
    let mut kept = None;
    let written = match plan(&read(path), own, wanted, forgot) {
        Step::Nothing => wanted.memory.clone(),
        Step::Refuse(reason) => return Err(io::Error::other(reason)),
        Step::Remove => {
            fs::remove_file(path)?;
            sync_folder(path)?;
            None
        }
        Step::Write { memory, keep } => {
            if let Some(keep) = keep {
                let mut name = path.as_os_str().to_owned();
                name.push(keep.suffix());
                fs::rename(path, &name)?;
                kept = Some((PathBuf::from(name), keep));
            }
            write(path, &memory.to_text())?;
            Some(memory)
        }
    };
    // After a merge with what another program wrote, the content is not this program's own.
    Ok(Done { own: written.filter(|written| wanted.memory.as_ref() == Some(written)), kept })
}

/// Replaces a file as a whole.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    // Random, because two programs in two containers have the same process id.
    name.push(format!(".{:016x}.new", fastrand::u64(..)));
    let beside = PathBuf::from(name);
    let written = write_beside(&beside, path, text);
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_beside(beside: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(beside)?;
    check_owner(&file, path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(beside, path)?;
    sync_folder(path)
}

/// Refuses to replace another user's file.
#[cfg(unix)]
fn check_owner(new: &File, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;

    match fs::metadata(path) {
        Ok(before) if before.uid() != new.metadata()?.uid() => {
            Err(io::Error::new(ErrorKind::PermissionDenied, "the file belongs to another user"))
        }
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_owner(_: &File, _: &Path) -> io::Result<()> {
    Ok(())
}

/// Brings the names in a file's folder to the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
