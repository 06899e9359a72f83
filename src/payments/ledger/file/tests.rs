use proptest::prelude::*;

use super::*;

const HEAD: &str = "id,account,date,kind,amount,balance_after\n";

fn read(body: &str) -> Result<Ledger, LedgerError> {
    Ledger::read(format!("{HEAD}{body}").as_bytes())
}

fn issues(body: &str) -> Vec<String> {
    read(body).unwrap_err().issues().iter().map(ToString::to_string).collect()
}

#[test]
fn a_ledger_is_read_in_the_order_of_its_lines() {
    let ledger = read(
        "2,b,1993-01-02,deposit,5,5\n\
         1,a,1993-01-01,deposit,900.00,900.00\n\
         3,a,1992-01-01,withdrawal,1000.50,-100.50\n",
    )
    .unwrap();
    let lines: Vec<_> = ledger.entries().iter().map(|entry| (entry.line, entry.id.as_str())).collect();
    assert_eq!(lines, [(2, "2"), (3, "1"), (4, "3")]);
    // The last one of an account is the last one in the file, whatever its date.
    let last: Vec<_> =
        ledger.last().map(|entry| (entry.account.as_str(), entry.balance_after.to_string())).collect();
    assert_eq!(last, [("a", "-100.5".to_owned()), ("b", "5".to_owned())]);
    assert_eq!(ledger.accounts(), 2);
}

#[test]
fn marks_and_line_ends_of_other_systems_are_taken_and_lines_are_counted_as_in_an_editor() {
    let unix = format!("{HEAD}1,a,1993-01-01,deposit,1,1\n\n2,a,1993-01-01,deposit,1,2");
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    for text in [unix, windows] {
        let ledger = Ledger::read(text.as_bytes()).unwrap();
        let lines: Vec<_> = ledger.entries().iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [2, 4], "{text:?}");
    }
}

#[test]
fn a_file_that_is_no_ledger_is_refused() {
    for (text, problem) in [
        ("", "line 1: the file is empty"),
        ("\n\n", "line 1: the file is empty"),
        ("1,a,1993-01-01,deposit,1,1\n", "line 1: the header is not"),
        ("\0\u{1}\u{2}", "line 1: the header is not"),
        (HEAD, "line 1: the file has a header and no line after it"),
    ] {
        let error = Ledger::read(text.as_bytes()).unwrap_err();
        assert!(error.issues()[0].to_string().starts_with(problem), "{text:?}: {error}");
    }
    let latin = [HEAD.as_bytes(), b"1,a,1993-01-01,deposit,1,\xE91\n"].concat();
    assert_eq!(Ledger::read(&latin[..]).unwrap_err().issues()[0].to_string(), "line 2: is not UTF-8");
}

#[test]
fn every_malformed_line_is_named() {
    let huge = "9".repeat(5000);
    let body = format!(
        "1,a,1993-01-01,deposit,1,1\n\
         2,a,1993-02-30,deposit,1,2\n\
         3,a,1993-1-1,deposit,1,2\n\
         4,a,1993-01-01,gift,1,2\n\
         5,a,1993-01-01,deposit,-1,2\n\
         6,a,1993-01-01,deposit,1e9,2\n\
         7,a,1993-01-01,deposit,{huge},2\n\
         8,a,1993-01-01,deposit,1,NaN\n\
         9,a,1993-01-01,deposit,1\n\
         10,a,1993-01-01,deposit,1,2,3\n\
         11,,1993-01-01,deposit,1,2\n\
         1,a,1993-01-01,deposit,1,2\n\
         13,a,1993-01-01,deposit,0,2\n\
         14,a,1993-01-01,deposit,1, 2\n"
    );
    let found = issues(&body);
    let lines: Vec<_> = found.iter().map(|issue| issue.split(':').next().unwrap()).collect();
    assert_eq!(lines, (3..=15).map(|line| format!("line {line}")).collect::<Vec<_>>(), "{found:#?}");
    assert_eq!(found[7], "line 10: has 5 fields instead of 6");
    assert_eq!(found[10], "line 13: id: 1 is already the id of line 2");
}

#[test]
fn a_file_of_another_format_does_not_flood() {
    let error = read(&"what is this\n".repeat(1000)).unwrap_err();
    assert_eq!((error.issues().len(), error.total()), (MAX_ISSUES, 1000));
    assert!(error.to_string().ends_with("- and 980 more"), "{error}");
}

proptest! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), with_head: bool) {
        let head = if with_head { HEAD.as_bytes() } else { b"" };
        let _ = Ledger::read(&[head, &bytes].concat()[..]);
    }

    #[test]
    fn a_written_ledger_is_read_back(cents in prop::collection::vec((1u64..1_000_000, any::<bool>()), 1..50)) {
        let mut balance = 0i64;
        let mut body = String::new();
        for (id, (amount, up)) in cents.iter().enumerate() {
            balance += if *up { *amount as i64 } else { -(*amount as i64) };
            let kind = if *up { "deposit" } else { "withdrawal" };
            let sign = if balance < 0 { "-" } else { "" };
            let (whole, part) = (balance.abs() / 100, balance.abs() % 100);
            body += &format!("{id},a,2000-01-01,{kind},{}.{:02},{sign}{whole}.{part:02}\n", amount / 100, amount % 100);
        }
        let ledger = read(&body).unwrap();
        prop_assert_eq!(ledger.entries().len(), cents.len());
        let mut sum = Balance::default();
        for entry in ledger.entries() {
            sum.apply(entry.kind, &entry.amount);
            prop_assert_eq!(&sum, &entry.balance_after);
        }
    }
}
