//! Lines of text files, and the parsers of their columns.

use std::fs;
use std::num::{IntErrorKind, ParseIntError};
use std::path::Path;
use std::str::FromStr;

use super::error::ImportError;

/// Reads a file that must be UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String, ImportError> {
    fs::read_to_string(path).map_err(|cause| ImportError {
        file: path.to_owned(),
        line: None,
        reason: format!("cannot read: {cause}"),
    })
}

/// The lines of a text, without the blank ones at its end.
pub(super) fn lines<'a>(file: &'a Path, text: &'a str) -> Vec<Line<'a>> {
    text.trim_end()
        .lines()
        .zip(1..)
        .map(|(text, number)| Line { file, number, text })
        .collect()
}

/// The error for a text that ends where `what` should stand.
pub(super) fn missing_line(file: &Path, lines: &[Line<'_>], what: &str) -> ImportError {
    ImportError {
        file: file.to_owned(),
        line: Some(lines.len() + 1),
        reason: format!("expected {what}, found the end of the file"),
    }
}

/// A line of a file, and the parsers of its columns.
pub(super) struct Line<'a> {
    /// The file, for errors.
    file: &'a Path,
    /// Counted from 1.
    pub(super) number: usize,
    /// Without the line end.
    pub(super) text: &'a str,
}

impl<'a> Line<'a> {
    /// The error that this line is refused with.
    pub(super) fn error(&self, reason: String) -> ImportError {
        ImportError {
            file: self.file.to_owned(),
            line: Some(self.number),
            reason,
        }
    }

    /// Whether there is nothing but tabs and spaces.
    pub(super) fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Splits at tabs and spaces into exactly the columns of these names.
    pub(super) fn columns<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[&'a str; N], ImportError> {
        let columns: Vec<&str> = self.text.split_whitespace().collect();
        columns.try_into().map_err(|columns: Vec<&str>| {
            self.error(format!(
                "columns: expected {N} ({}), found {}",
                names.join(", "),
                columns.len()
            ))
        })
    }

    /// Parses a whole number of 0 or more; `what` names it in the error.
    pub(super) fn whole<T: FromStr<Err = ParseIntError>>(
        &self,
        what: &str,
        column: &str,
    ) -> Result<T, ImportError> {
        column.parse().map_err(|error: ParseIntError| {
            let remark = match error.kind() {
                IntErrorKind::PosOverflow => ", which is too large",
                _ => "",
            };
            self.error(format!(
                "expected {what}, a whole number of 0 or more, found {column:?}{remark}"
            ))
        })
    }

    /// Parses a number that is neither NaN nor infinite, both of which `f64` would accept.
    pub(super) fn finite(&self, what: &str, column: &str) -> Result<f64, ImportError> {
        match column.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.error(format!(
                "expected {what}, a finite number, found {column:?}"
            ))),
        }
    }

    /// Parses a finite number of 0 or more.
    pub(super) fn not_negative(&self, what: &str, column: &str) -> Result<f64, ImportError> {
        match self.finite(what, column)? {
            number if number < 0.0 => Err(self.error(format!(
                "expected {what}, a number of 0 or more, found {column:?}"
            ))),
            number => Ok(number),
        }
    }
}
