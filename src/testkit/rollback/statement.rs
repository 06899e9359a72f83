//! The effect of a statement on transactions, by its first words.
//!
//! A COMMIT that reached the server would end the outer transaction. So a request is split into its statements, as the
//! server itself would split it. Statements that begin or end transactions are translated to savepoints.

use super::settings::is_name;

/// The effect of a statement on transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// Nothing.
    None,
    Begin(Access),
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    /// It sets, releases or rolls back to a savepoint.
    Savepoint,
    /// It belongs to a two-phase commit.
    TwoPhase,
}

/// The access mode of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// As the session does by default.
    Default,
    ReadOnly,
    ReadWrite,
}

impl Control {
    /// Returns the effect of one statement.
    pub(super) fn of(statement: &str) -> Self {
        let words = words(statement);
        let has = |word: &str| words.iter().any(|other| other == word);
        let follows = |pair: [&str; 2]| words.windows(2).any(|two| two == pair);
        let chain = follows(["AND", "CHAIN"]);
        match words.first().map(String::as_str) {
            Some("BEGIN" | "START") if follows(["READ", "ONLY"]) => Self::Begin(Access::ReadOnly),
            Some("BEGIN" | "START") if follows(["READ", "WRITE"]) => Self::Begin(Access::ReadWrite),
            Some("BEGIN" | "START") => Self::Begin(Access::Default),
            Some("COMMIT" | "ROLLBACK") if has("PREPARED") => Self::TwoPhase,
            Some("PREPARE") if words.get(1).is_some_and(|word| word == "TRANSACTION") => Self::TwoPhase,
            Some("COMMIT" | "END") => Self::Commit { chain },
            Some("ROLLBACK") if has("TO") => Self::Savepoint,
            Some("ROLLBACK" | "ABORT") => Self::Rollback { chain },
            Some("SAVEPOINT" | "RELEASE") => Self::Savepoint,
            _ => Self::None,
        }
    }
}

/// Splits a request into its statements.
pub(super) fn statements(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut begin, mut depth, mut creates, mut is_first) = (0, 0_u32, false, true);
    for (at, token) in Tokens::new(sql) {
        match token {
            Token::Semicolon if depth == 0 => {
                statements.push(&sql[begin..at]);
                (begin, creates, is_first) = (at + 1, false, true);
            }
            Token::Word(word) => {
                let is = |other: &str| word.eq_ignore_ascii_case(other);
                if std::mem::take(&mut is_first) {
                    creates = is("CREATE");
                } else if creates && (is("BEGIN") || (depth > 0 && is("CASE"))) {
                    // The body of a function in standard SQL contains semicolons.
                    depth += 1;
                } else if is("END") {
                    depth = depth.saturating_sub(1);
                }
            }
            Token::Semicolon | Token::Other => {}
        }
    }
    statements.push(&sql[begin..]);
    statements.retain(|statement| Tokens::new(statement).next().is_some());
    statements
}

/// Returns the names of the settings that a statement sets for its transaction.
///
/// It knows only those that the text shows.
pub(super) fn local_settings(statement: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let ["SET", "LOCAL", name, ..] = &words(statement).iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let at = Tokens::new(statement).nth(2).map_or(0, |(at, _)| at);
        let written =
            statement[at..].split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
        names.extend(match *name {
            "TRANSACTION" => None,
            "TIME" => Some("timezone"),
            "SESSION" => Some("session_authorization"),
            _ => Some(written),
        });
    }
    let is = |token: &Token<'_>, other: &str| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(other));
    if statement.len() >= "set_config".len() {
        let tokens: Vec<_> = Tokens::new(statement).collect();
        let is_local = tokens.iter().any(|(_, token)| is(token, "true"))
            && !tokens.iter().any(|(_, token)| is(token, "false"));
        for three in tokens.windows(3).filter(|three| is_local && is(&three[0].1, "set_config")) {
            names.extend(statement[three[2].0..].strip_prefix('\'').and_then(|name| name.split('\'').next()));
        }
    }
    names.into_iter().filter(|name| is_name(name)).map(str::to_owned).collect()
}

/// Returns the first words of a statement in capitals.
///
/// They are enough to recognise any statement that ends a transaction.
fn words(statement: &str) -> Vec<String> {
    let word = |(_, token)| match token {
        Token::Word(word) => Some(word.to_ascii_uppercase()),
        Token::Semicolon | Token::Other => None,
    };
    Tokens::new(statement).take(24).filter_map(word).collect()
}

enum Token<'s> {
    Word(&'s str),
    Semicolon,
    /// Any other token that is no comment: a string, a quoted name, an operator.
    Other,
}

struct Tokens<'s> {
    sql: &'s str,
    at: usize,
}

impl<'s> Tokens<'s> {
    fn new(sql: &'s str) -> Self {
        Self { sql, at: 0 }
    }

    fn rest(&self) -> &'s str {
        &self.sql[self.at..]
    }

    /// Skips to the end of the token that starts with a prefix of this length.
    fn skip_past(&mut self, begin: usize, end: &str) {
        let length = self.rest()[begin..].find(end).map_or(self.rest().len(), |at| begin + at + end.len());
        self.at += length;
    }

    /// Skips a string or a quoted name.
    ///
    /// A doubled quote in it begins another one at once.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) {
        let bytes = self.rest().as_bytes();
        let mut i = 1;
        while i < bytes.len() && bytes[i] != quote {
            i += if escapes && bytes[i] == b'\\' { 2 } else { 1 };
        }
        self.at = (self.at + i + 1).min(self.sql.len());
    }

    fn skip_comment(&mut self) {
        let bytes = self.rest().as_bytes();
        let (mut depth, mut i) = (0_u32, 0);
        while i < bytes.len() {
            match &bytes[i..(i + 2).min(bytes.len())] {
                b"/*" => (depth, i) = (depth + 1, i + 2),
                b"*/" => (depth, i) = (depth - 1, i + 2),
                _ => i += 1,
            }
            if depth == 0 {
                break;
            }
        }
        self.at += i.min(bytes.len());
    }

    /// Returns the length of the tag that starts a dollar-quoted string.
    fn dollar_quote(&self) -> Option<usize> {
        let tag = self.rest().strip_prefix('$')?;
        let end = tag.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
        (tag[end..].starts_with('$') && !tag.starts_with(|c: char| c.is_ascii_digit())).then_some(end + 2)
    }
}

impl<'s> Iterator for Tokens<'s> {
    type Item = (usize, Token<'s>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (rest, at) = (self.rest(), self.at);
            let first = rest.chars().next()?;
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            if first.is_whitespace() {
                self.at += first.len_utf8();
            } else if rest.starts_with("--") {
                self.skip_past(2, "\n");
            } else if rest.starts_with("/*") {
                self.skip_comment();
            } else if first == '\'' || first == '"' {
                self.skip_quoted(rest.as_bytes()[0], false);
                return Some((at, Token::Other));
            } else if rest.len() > 1 && rest.as_bytes()[1] == b'\'' && matches!(first, 'e' | 'E') {
                self.at += 1;
                self.skip_quoted(b'\'', true);
                return Some((at, Token::Other));
            } else if let Some(length) = self.dollar_quote() {
                self.skip_past(length, &rest[..length]);
                return Some((at, Token::Other));
            } else if first.is_alphanumeric() || first == '_' {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                self.at += length;
                return Some((at, Token::Word(&rest[..length])));
            } else {
                self.at += first.len_utf8();
                return Some((at, if first == ';' { Token::Semicolon } else { Token::Other }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_of_transactions_is_known() {
        for (sql, control) in [
            ("BEGIN", Control::Begin(Access::Default)),
            ("  /* a /* nested */ comment */ -- and a line\n begin work", Control::Begin(Access::Default)),
            ("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY", Control::Begin(Access::ReadOnly)),
            ("START TRANSACTION READ WRITE", Control::Begin(Access::ReadWrite)),
            ("COMMIT", Control::Commit { chain: false }),
            ("end transaction", Control::Commit { chain: false }),
            ("COMMIT AND CHAIN", Control::Commit { chain: true }),
            ("COMMIT AND NO CHAIN", Control::Commit { chain: false }),
            ("ABORT", Control::Rollback { chain: false }),
            ("ROLLBACK/**/WORK", Control::Rollback { chain: false }),
            ("ROLLBACK TO SAVEPOINT a", Control::Savepoint),
            ("RELEASE a", Control::Savepoint),
            ("PREPARE TRANSACTION 'a'", Control::TwoPhase),
            ("COMMIT PREPARED 'a'", Control::TwoPhase),
            ("PREPARE a AS SELECT 1", Control::None),
            ("SELECT 'COMMIT'", Control::None),
            ("", Control::None),
        ] {
            assert_eq!(Control::of(sql), control, "{sql}");
        }
    }

    #[test]
    fn settings_of_a_transaction_are_found() {
        for (sql, names) in [
            ("SET LOCAL lock_timeout = '1s'", &["lock_timeout"][..]),
            ("set local app.user='7'", &["app.user"]),
            ("SET LOCAL TIME ZONE 'UTC'", &["timezone"]),
            ("SET LOCAL ROLE reader", &["ROLE"]),
            ("SET LOCAL TRANSACTION READ ONLY", &[]),
            ("SET lock_timeout = '1s'", &[]),
            ("SELECT set_config('app.user', $1, true), 1", &["app.user"]),
            ("SELECT set_config('app.user', $1, false)", &[]),
            ("SELECT set_config('a''; DROP TABLE b', $1, true)", &["a"]),
            ("SELECT set_config('a; DROP TABLE b', $1, true)", &[]),
            ("SELECT set_config($1, $2, true)", &[]),
        ] {
            assert_eq!(local_settings(sql), names, "{sql}");
        }
    }

    #[test]
    fn a_request_is_cut_where_the_server_cuts_it() {
        for (sql, count) in [
            ("SELECT 1", 1),
            ("SELECT 1; ; -- nothing\n;", 1),
            ("SELECT ';'; COMMIT", 2),
            ("SELECT 'it''s;' || \"a;b\"; COMMIT", 2),
            (r"SELECT E'a\';COMMIT;'; COMMIT", 2),
            (r"SELECT 'a\'; COMMIT; SELECT ''", 3),
            ("DO $$ BEGIN NULL; COMMIT; END $$; COMMIT", 2),
            ("SELECT $a$ $$; $b$ $a$; COMMIT", 2),
            ("SELECT $1; COMMIT", 2),
            ("SELECT a$1; COMMIT; SELECT b$1", 3),
            ("SELECT 1 /* ; /* ; */ ; */; COMMIT", 2),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; COMMIT",
                2,
            ),
            ("BEGIN; SELECT CASE WHEN true THEN 1 END; END", 3),
            ("SELECT 'never closed; COMMIT", 1),
        ] {
            let found = statements(sql);
            assert_eq!(found.len(), count, "{sql}: {found:?}");
        }
    }
}
