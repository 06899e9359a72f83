//! A ledger file, checked as a whole before it is used.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use csv::{ReaderBuilder, StringRecord};

use crate::payments::{AccountId, Amount, Balance, Kind, ProviderId};

/// The first line of every ledger.
const HEADER: [&str; 6] = ["id", "account", "date", "kind", "amount", "balance_after"];

/// Bytes of the largest file that is read.
///
/// The whole ledger is held in memory while it is checked.
const MAX_BYTES: u64 = 1 << 30;

/// One line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The line in the file; the header is line 1.
    pub line: u64,
    /// The ledger's id; unique in the ledger.
    pub id: ProviderId,
    /// The account.
    pub account: AccountId,
    /// The day.
    pub date: NaiveDate,
    /// The direction.
    pub kind: Kind,
    /// The amount.
    pub amount: Amount,
    /// The account's balance afterwards, according to the ledger.
    pub balance_after: Balance,
}

impl Entry {
    /// Returns the recorded time: the day's beginning in UTC.
    ///
    /// The ledger has only the day.
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.date.and_time(NaiveTime::MIN).and_utc()
    }
}

/// A well-formed ledger. Its balances may still be wrong; the replay finds that.
///
/// Lines of one account are recorded in the order of the file, whatever their dates. A byte order mark and both kinds
/// of line ends are accepted; empty lines are skipped.
///
/// ```
/// use pointsman::payments::ledger::Ledger;
///
/// let text = "id,account,date,kind,amount,balance_after\n1,576,1993-01-01,deposit,900.00,900.00\n";
/// let ledger = Ledger::read(text.as_bytes())?;
/// assert_eq!((ledger.entries().len(), ledger.accounts()), (1, 1));
///
/// let error = Ledger::read(text.replace("deposit", "gift").as_bytes()).unwrap_err();
/// assert_eq!(error.issues()[0].to_string(), "line 2: kind: this is not a kind: it is one of deposit, withdrawal");
/// # Ok::<(), pointsman::payments::ledger::LedgerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    entries: Vec<Entry>,
    /// The last entry of each account, by its index.
    last: BTreeMap<AccountId, usize>,
}

/// An error in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct LedgerIssue {
    /// The line in the file; the header is line 1.
    pub line: u64,
    /// The error.
    pub problem: String,
}

/// A file that is not a ledger. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(.issues, *.total))]
pub struct LedgerError {
    issues: Vec<LedgerIssue>,
    total: u64,
}

/// Maximum errors that are kept.
///
/// More help no reader, and a file of another format has one per line.
const MAX_ISSUES: usize = 20;

fn describe(issues: &[LedgerIssue], total: u64) -> String {
    let mut text = format!(
        "the ledger has {total} malformed {}, nothing was stored:",
        if total == 1 { "line" } else { "lines" }
    );
    for issue in issues {
        text.push_str(&format!("\n  - {issue}"));
    }
    let more = total.saturating_sub(issues.len() as u64);
    if more > 0 {
        text.push_str(&format!("\n  - and {more} more"));
    }
    text
}

impl LedgerError {
    /// The first errors, in the order of the lines.
    pub fn issues(&self) -> &[LedgerIssue] {
        &self.issues
    }

    /// Returns the number of lines with an error.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// Collects errors.
#[derive(Default)]
struct Issues {
    first: Vec<LedgerIssue>,
    total: u64,
}

impl Issues {
    fn push(&mut self, line: u64, problem: impl Into<String>) {
        self.total += 1;
        if self.first.len() < MAX_ISSUES {
            self.first.push(LedgerIssue { line, problem: problem.into() });
        }
    }

    fn into_error(self) -> LedgerError {
        LedgerError { issues: self.first, total: self.total }
    }
}

impl Ledger {
    /// Reads a ledger, and checks every line of it.
    ///
    /// # Errors
    ///
    /// Fails with the first twenty malformed lines, and their total. A ledger without entries is also an error, because
    /// it is most likely the wrong file.
    pub fn read(source: impl Read) -> Result<Self, LedgerError> {
        let mut issues = Issues::default();
        let mut bytes = Vec::new();
        match source.take(MAX_BYTES + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > MAX_BYTES => {
                issues.push(1, "the file is larger than 1 GiB: split it")
            }
            Ok(_) => {}
            Err(error) => issues.push(1, format!("the file cannot be read: {error}")),
        }
        if issues.total > 0 {
            return Err(issues.into_error());
        }
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        let mut records = reader.byte_records();
        let header = records.next().transpose();
        let is_header = matches!(&header, Ok(Some(fields)) if fields.iter().eq(HEADER.map(str::as_bytes)));
        if !is_header {
            let problem = match header {
                Ok(None) => format!("the file is empty: it begins with `{}`", HEADER.join(",")),
                _ => format!("the header is not `{}`", HEADER.join(",")),
            };
            issues.push(1, problem);
            return Err(issues.into_error());
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<ProviderId, u64> = HashMap::new();
        let mut last = BTreeMap::new();
        let mut lines = Lines { text, counted: 0, line: 1 };
        for record in records {
            let position = match &record {
                Ok(record) => record.position(),
                Err(error) => error.position(),
            };
            let line = lines.of(position.map_or(0, csv::Position::byte));
            let parsed = match record.map(StringRecord::from_byte_record) {
                Ok(Ok(record)) => entry(line, &record),
                Ok(Err(_)) => Err("is not UTF-8".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            match parsed {
                Ok(entry) => match seen.get(&entry.id) {
                    Some(earlier) => {
                        issues.push(line, format!("id: {} is already the id of line {earlier}", entry.id));
                    }
                    None => {
                        seen.insert(entry.id.clone(), line);
                        last.insert(entry.account.clone(), entries.len());
                        entries.push(entry);
                    }
                },
                Err(problem) => issues.push(line, problem),
            }
        }
        if issues.total == 0 && entries.is_empty() {
            issues.push(1, "the file has a header and no line after it: there is nothing to replay");
        }
        if issues.total > 0 { Err(issues.into_error()) } else { Ok(Self { entries, last }) }
    }

    /// Returns the entries, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the number of accounts.
    pub fn accounts(&self) -> usize {
        self.last.len()
    }

    /// Returns the last entry of each account, by the account's name.
    pub fn last(&self) -> impl Iterator<Item = &Entry> {
        self.last.values().map(|place| &self.entries[*place])
    }
}

/// Counts lines as an editor does.
///
/// The `csv` crate counts them too, but starts a record after `\r`. So all numbers are one too small in a file from
/// Windows, and empty lines belong to the record after them.
struct Lines<'t> {
    text: &'t [u8],
    counted: usize,
    line: u64,
}

impl Lines<'_> {
    /// Returns the line of the record that begins at a byte, after line ends there.
    ///
    /// Calls must be in order.
    fn of(&mut self, byte: u64) -> u64 {
        let rest = self.text.get(usize::try_from(byte).unwrap_or(usize::MAX)..).unwrap_or_default();
        let ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let begin = self.text.len() - rest.len() + ends;
        let between = self.text.get(self.counted..begin).unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.counted = self.counted.max(begin);
        self.line
    }
}

fn entry(line: u64, record: &StringRecord) -> Result<Entry, String> {
    let fields: Vec<&str> = record.iter().collect();
    let [id, account, date, kind, amount, balance_after] = fields[..] else {
        return Err(format!("has {} fields instead of {}", fields.len(), HEADER.len()));
    };
    Ok(Entry {
        line,
        id: field("id", id)?,
        account: field("account", account)?,
        date: day(date).ok_or("date: this is not a day: write it as 1993-01-31")?,
        kind: field("kind", kind)?,
        amount: field("amount", amount)?,
        balance_after: field("balance_after", balance_after)?,
    })
}

fn field<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{name}: {error}"))
}

/// Chrono also accepts `1993-1-1`, `+1993-01-01` and years of any length.
///
/// A ledger that mixes them is not trustworthy.
fn day(text: &str) -> Option<NaiveDate> {
    let shape = text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    shape.eq(*b"0000-00-00").then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
