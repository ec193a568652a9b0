//! The text of a statement: which parameters it names, and what it must not hold.

/// What `?`, `@` and `$` are in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Operators and quotes.
    Operators,
    /// In some database where the text may run, the beginning of a parameter. It would be one that
    /// nobody gives, and is NULL.
    Parameters,
}

/// A text whose parameters are numbered.
#[derive(Debug, PartialEq)]
pub(super) struct Scanned {
    /// The text, with `$1` in place of the first parameter of the method.
    pub(super) sql: String,
    /// Which parameters it names, by their numbers from 0.
    pub(super) named: Vec<usize>,
}

/// Numbers the parameters of a text. What stands in quotes and comments, and `::`, names none.
///
/// The rules:
///
/// - each `:name` is a parameter
/// - quotes and comments end, and comments do not nest
/// - there is one statement, which reads: `SELECT`, `WITH` or `VALUES`
/// - there are no parameters of another spelling
pub(super) fn scan(text: &str, parameters: &[String], marks: Marks) -> Result<Scanned, String> {
    let mut scanner = Scanner {
        text,
        at: 0,
        marks,
        sql: String::with_capacity(text.len()),
        code: String::with_capacity(text.len()),
    };
    let mut named = Vec::new();
    while let Some(next) = scanner.next(parameters)? {
        if !named.contains(&next) {
            named.push(next);
        }
    }
    check_statement(&scanner.code)?;
    Ok(Scanned {
        sql: scanner.sql,
        named,
    })
}

/// Whether a text locks rows, outside of quotes and comments.
pub(super) fn locks(text: &str, parameters: &[String]) -> bool {
    let mut scanner = Scanner {
        text,
        at: 0,
        marks: Marks::Operators,
        sql: String::new(),
        code: String::new(),
    };
    while let Ok(Some(_)) = scanner.next(parameters) {}
    let words: Vec<String> = words(&scanner.code);
    words.windows(2).any(|pair| {
        let locks = ["update", "share", "no", "key"];
        pair[0] == "for" && locks.contains(&pair[1].as_str())
    })
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
    marks: Marks,
    sql: String,
    /// The text without quotes and comments.
    code: String,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Copies what has this length.
    fn copy(&mut self, length: usize, is_code: bool) {
        let part = &self.text[self.at..self.at + length];
        self.sql.push_str(part);
        if is_code {
            self.code.push_str(part);
        } else {
            self.code.push(' ');
        }
        self.at += length;
    }

    /// Goes on to behind the next parameter; `None` at the end of the text.
    fn next(&mut self, parameters: &[String]) -> Result<Option<usize>, String> {
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return Ok(None);
            };
            if self.marks == Marks::Parameters {
                check_mark(rest, &self.code)?;
            }
            if let Some(length) = quoted(rest, &self.code)? {
                self.copy(length, false);
                continue;
            }
            match first {
                ':' if rest.starts_with("::") => self.copy(2, true),
                ':' => {
                    let name = name(&rest[1..]);
                    if name.is_empty() {
                        self.copy(1, true);
                        continue;
                    }
                    let Some(number) = parameters.iter().position(|known| known == name) else {
                        return Err(unknown(name, parameters));
                    };
                    self.at += 1 + name.len();
                    self.sql.push_str(&format!("${}", number + 1));
                    self.code.push_str(" ? ");
                    return Ok(Some(number));
                }
                '$' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    return Err("a parameter is named: write `:name` in place of `$1`".to_owned());
                }
                '\0' => return Err("SQL holds no NUL character".to_owned()),
                other => self.copy(other.len_utf8(), true),
            }
        }
    }
}

/// Refuses a parameter of another spelling at the beginning of a text; `before` is the code in
/// front of it. A `$` within a name is part of that.
fn check_mark(text: &str, before: &str) -> Result<(), String> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    match text.chars().next() {
        Some('$') if before.ends_with(is_of_name) => Ok(()),
        Some('$') if text[1..].starts_with(|c: char| c.is_ascii_digit()) => Ok(()),
        Some(mark @ ('?' | '@' | '$')) => Err(format!(
            "`{mark}` begins a parameter in SQLite, and a parameter is named: write `:name`; for an operator or a quote of Postgres say which text is its: `#[sql(postgres = \"...\", sqlite = \"...\")]`"
        )),
        _ => Ok(()),
    }
}

fn unknown(name: &str, parameters: &[String]) -> String {
    let known: Vec<String> = parameters.iter().map(|name| format!("`:{name}`")).collect();
    format!(
        "`:{name}` is no parameter of the finder (known here: {})",
        known.join(", ")
    )
}

/// The name at the beginning of a text.
fn name(text: &str) -> &str {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(is_start) {
        return "";
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

/// How long the quote or comment at the beginning of a text is, if there is one; `before` is the
/// code in front of it.
fn quoted(text: &str, before: &str) -> Result<Option<usize>, String> {
    let length = if text.starts_with('\'') {
        let escapes = is_escape_string(before);
        quote_end(text, '\'', escapes)
    } else if text.starts_with('"') {
        quote_end(text, '"', false)
    } else if text.starts_with('`') {
        quote_end(text, '`', false)
    } else if text.starts_with("--") {
        Some(text.find('\n').unwrap_or(text.len()))
    } else if let Some(comment) = text.strip_prefix("/*") {
        let end = comment.find("*/");
        if end.is_some_and(|end| comment[..end].contains("/*")) {
            return Err("a comment within a comment: databases disagree where it ends".to_owned());
        }
        end.map(|end| end + 4)
    } else if let Some(delimiter) = dollar_delimiter(text) {
        let end = text[delimiter.len()..].find(delimiter);
        end.map(|end| end + 2 * delimiter.len())
    } else {
        return Ok(None);
    };
    length.map(Some).ok_or_else(|| {
        let beginning: String = text.chars().take(12).collect();
        format!("this quote or comment has no end: {beginning}")
    })
}

/// Whether a string behind this code is one with escapes: `E'...'`.
fn is_escape_string(before: &str) -> bool {
    let mut last = before.chars().rev();
    matches!(last.next(), Some('e' | 'E'))
        && !last
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Where a quote ends; a doubled one is part of it.
fn quote_end(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if escapes && character == '\\' {
            characters.next();
        } else if character == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => drop(characters.next()),
                _ => return Some(at + quote.len_utf8()),
            }
        }
    }
    None
}

/// `$$` or `$tag$` at the beginning of a text.
fn dollar_delimiter(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('$')?;
    let tag = name(inside);
    inside[tag.len()..]
        .starts_with('$')
        .then(|| &text[..tag.len() + 2])
}

fn words(code: &str) -> Vec<String> {
    code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect()
}

fn check_statement(code: &str) -> Result<(), String> {
    let code = code.trim();
    if code.contains(';') {
        return Err("one statement, without `;`".to_owned());
    }
    let words = words(code);
    let Some(first) = words.first() else {
        return Err("there is no statement in it".to_owned());
    };
    if !["select", "with", "values"].contains(&first.as_str()) {
        return Err("a finder reads: begin with `SELECT`, `WITH` or `VALUES`; what writes goes through `save`, or `uow.connection()`".to_owned());
    }
    match writing(&words) {
        None => Ok(()),
        Some(word) => Err(format!(
            "a finder reads, and `{word}` writes: that goes through `save`, or `uow.connection()`; a name of this kind stands in quotes"
        )),
    }
}

/// A word by which a statement that begins as one that reads writes, wherever it stands: in a
/// common table, or behind those. There is no `INSERT` and no `MERGE` without `INTO`.
fn writing(words: &[String]) -> Option<&str> {
    let before = [""].into_iter().chain(words.iter().map(String::as_str));
    let found = before
        .zip(words)
        .find(|(before, word)| match word.as_str() {
            "into" | "delete" => true,
            "update" => !["for", "key"].contains(before),
            _ => false,
        });
    found.map(|(_, word)| word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &str) -> Result<(String, Vec<usize>), String> {
        let parameters = ["id", "min", "tenant"].map(str::to_owned);
        scan(text, &parameters, Marks::Operators).map(|scanned| (scanned.sql, scanned.named))
    }

    #[test]
    fn names_become_numbers() {
        for (text, sql, named) in [
            (
                "SELECT :min::int8 + :id, :min",
                "SELECT $2::int8 + $1, $2",
                vec![1, 0],
            ),
            (
                "SELECT ':id', \":id\", `:id`, :id",
                "SELECT ':id', \":id\", `:id`, $1",
                vec![0],
            ),
            (
                "SELECT 'it''s :id' -- :id\n, :id",
                "SELECT 'it''s :id' -- :id\n, $1",
                vec![0],
            ),
            (
                "SELECT E'\\':id' /* :id */",
                "SELECT E'\\':id' /* :id */",
                vec![],
            ),
            ("SELECT ticke'\\', :id", "SELECT ticke'\\', $1", vec![0]),
            (
                "SELECT $$:id$$, $a$ $$ :id $a$, :id",
                "SELECT $$:id$$, $a$ $$ :id $a$, $1",
                vec![0],
            ),
            (
                "SELECT a[1 : 2], x := 3, 'é:id', :id",
                "SELECT a[1 : 2], x := 3, 'é:id', $1",
                vec![0],
            ),
            (
                "WITH é AS (SELECT :tenant) SELECT 1",
                "WITH é AS (SELECT $3) SELECT 1",
                vec![2],
            ),
            (
                "SELECT 'into', \"delete\", updated FROM a FOR NO KEY UPDATE",
                "SELECT 'into', \"delete\", updated FROM a FOR NO KEY UPDATE",
                vec![],
            ),
            (
                "-- what for\n SELECT 1 -- :id",
                "-- what for\n SELECT 1 -- :id",
                vec![],
            ),
        ] {
            assert_eq!(scanned(text), Ok((sql.to_owned(), named)), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("SELECT :idd", "`:idd` is no parameter"),
            ("SELECT a[1:b]", "`:b` is no parameter"),
            ("SELECT $1", "a parameter is named"),
            ("SELECT 'a", "has no end: 'a"),
            ("SELECT /* a", "has no end"),
            ("SELECT $x$ a $y$", "has no end"),
            ("SELECT /* a /* b */ */ 1", "a comment within a comment"),
            ("SELECT 1; SELECT 2", "one statement"),
            ("SELECT 1;", "one statement"),
            ("  -- nothing", "there is no statement"),
            ("DELETE FROM t", "a finder reads: begin"),
            (
                "WITH gone AS (DELETE FROM t RETURNING 1) SELECT 1",
                "`delete` writes",
            ),
            ("WITH a AS (SELECT 1) DELETE FROM t", "`delete` writes"),
            ("WITH a AS (SELECT 1) UPDATE t SET x = 1", "`update` writes"),
            (
                "WITH a AS (WITH b AS (SELECT 1) UPDATE t SET x = 1) SELECT 1",
                "`update` writes",
            ),
            (
                "WITH a AS (SELECT 1) INSERT INTO t SELECT 1",
                "`into` writes",
            ),
            ("SELECT 1 INTO t FROM a", "`into` writes"),
            ("SELECT '\0', \0", "NUL"),
        ] {
            let error = scanned(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn other_spellings_of_parameters_are_refused() {
        let scanned = |text, marks| scan(text, &["id".to_owned()], marks).map(|found| found.sql);
        for text in [
            "SELECT ?",
            "SELECT ?1",
            "SELECT a ? 'b'",
            "SELECT @id",
            "SELECT $id",
            "SELECT $$a$$",
        ] {
            let error = scanned(text, Marks::Parameters).unwrap_err();
            assert!(error.contains("write `:name`"), "{text}: {error}");
            assert_eq!(scanned(text, Marks::Operators), Ok(text.to_owned()));
        }
        for text in [
            "SELECT '?@$a'",
            "SELECT \"?\", `@a` -- $a ?",
            "SELECT a$b, c$ /* ? */",
        ] {
            assert_eq!(scanned(text, Marks::Parameters), Ok(text.to_owned()));
        }
        let error = scanned("SELECT $1", Marks::Parameters).unwrap_err();
        assert!(error.contains("in place of `$1`"), "{error}");
    }

    #[test]
    fn locks_are_seen() {
        let locks = |text| super::locks(text, &[]);
        assert!(locks("SELECT 1 FROM t FOR UPDATE"));
        assert!(locks("SELECT 1 FROM t for\n no key update"));
        assert!(!locks("SELECT 'for update', substring(a for 3) FROM t"));
    }
}
