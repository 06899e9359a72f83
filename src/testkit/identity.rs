//! A separate system identifier for every cluster.
//!
//! `initdb` draws the identifier, so all copies of one template would have the same, and a test could never show a
//! *foreign* server. The identifier is stored in two places: at the start of `global/pg_control`, which has a
//! checksum, and in the header of each WAL segment.

use super::error::{Result, TestkitError, file};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Offset of the identifier in a WAL segment.
///
/// It follows the short page header of 20 bytes, aligned.
const OFFSET_IN_WAL: u64 = 24;

/// Draws an identifier as `initdb` does: the time, with the rest filled up.
pub(super) fn draw() -> u64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (seconds << 32) | u64::from(fastrand::u32(..))
}

/// Writes the identifier `new` into the data directory of a server that never ran.
pub(super) fn assign(data_dir: &Path, new: u64) -> Result<()> {
    let control = data_dir.join("global/pg_control");
    let mut bytes = std::fs::read(&control).map_err(file("read", &control))?;
    let old: [u8; 8] =
        bytes.first_chunk().copied().ok_or(TestkitError::Template { reason: "pg_control is empty" })?;
    let end =
        checksum_position(&bytes).ok_or(TestkitError::Template { reason: "pg_control has no checksum" })?;
    bytes[..8].copy_from_slice(&new.to_ne_bytes());
    let checksum = crc32c(&bytes[..end]);
    bytes[end..end + 4].copy_from_slice(&checksum.to_ne_bytes());
    std::fs::write(&control, bytes).map_err(file("write", &control))?;

    let wal = data_dir.join("pg_wal");
    for entry in std::fs::read_dir(&wal).map_err(file("read", &wal))?.flatten() {
        let path = entry.path();
        let is_segment = entry.file_name().len() == 24 && path.is_file();
        if is_segment {
            let segment =
                OpenOptions::new().read(true).write(true).open(&path).map_err(file("open", &path))?;
            relabel(&segment, old, new).map_err(file("write", &path))?;
        }
    }
    Ok(())
}

/// Writes the identifier into a segment that has the old one.
///
/// An unused segment has none.
fn relabel(segment: &File, old: [u8; 8], new: u64) -> std::io::Result<()> {
    let mut found = [0; 8];
    segment.read_exact_at(&mut found, OFFSET_IN_WAL)?;
    if found == old { segment.write_all_at(&new.to_ne_bytes(), OFFSET_IN_WAL) } else { Ok(()) }
}

/// Finds the checksum.
///
/// It is the last field of a structure that grows with the versions.
fn checksum_position(control: &[u8]) -> Option<usize> {
    (64..control.len().min(512)).step_by(4).find(|&end| {
        control.get(end..end + 4).is_some_and(|stored| stored == crc32c(&control[..end]).to_ne_bytes())
    })
}

/// The CRC-32C of PostgreSQL, bit by bit: a few hundred bytes don't need a table.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::{checksum_position, crc32c};

    #[test]
    fn agrees_with_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn finds_the_checksum_behind_what_it_covers() {
        let mut control = [7_u8; 600];
        let checksum = crc32c(&control[..288]);
        control[288..292].copy_from_slice(&checksum.to_ne_bytes());
        assert_eq!(checksum_position(&control), Some(288));
        control[0] = 0;
        assert_eq!(checksum_position(&control), None);
    }
}
