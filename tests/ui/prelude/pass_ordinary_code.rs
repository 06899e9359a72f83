//! Code without queries compiles in a file that imports the prelude.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman::prelude::*;

pub fn collections(rows: Vec<i32>, queue: VecDeque<i32>, set: BTreeSet<i32>) -> Option<i32> {
    let _ = (rows.first(), rows.as_slice().first(), rows.iter().max(), rows.last());
    let _ = (queue.front(), set.first(), set.union(&set).count(), set.intersection(&set).count());
    let map: BTreeMap<i32, i32> = rows.iter().map(|row| (*row, *row)).collect();
    map.first_key_value().map(|(key, _)| *key)
}

pub fn atomics(counter: &AtomicU64, cell: &Cell<u64>) -> u64 {
    counter.store(cell.get(), Ordering::Relaxed);
    counter.load(Ordering::Relaxed)
}

pub fn iterators(rows: &[i32]) -> Vec<i32> {
    rows.iter().copied().filter(|row| *row > 1).take(3).skip(1).collect()
}

pub fn files(mut from: std::fs::File, to: &mut Vec<u8>) -> std::io::Result<()> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    to.write_all(text.as_bytes())
}

pub trait Command {
    fn execute(&self, times: u32) -> u32;
    fn load(&self) -> u32;
    fn first(&self) -> u32;
}

pub struct Job;

impl Command for Job {
    fn execute(&self, times: u32) -> u32 {
        times
    }

    fn load(&self) -> u32 {
        1
    }

    fn first(&self) -> u32 {
        1
    }
}

/// Methods with the names of query methods, in a trait of your own.
pub fn own_trait(job: &Job) -> u32 {
    job.execute(2) + job.load() + job.first() + Job.execute(3)
}

pub fn generic<T: Command>(job: T) -> u32 {
    job.execute(2) + job.load() + job.first()
}

/// `use std::io::{Read as _, Write as _}` does not hide the prelude's `Read` and `Write`.
pub async fn intents(read: &Conn<Read>, write: &Conn<Write>) -> (String, String) {
    (read.node().to_owned(), write.node().to_owned())
}
