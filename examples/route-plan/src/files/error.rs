//! Why a file is refused.

use std::path::{Path, PathBuf};

/// Why a file was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", place(file, *line))]
pub(crate) struct ImportError {
    /// The file, or the folder.
    pub(crate) file: PathBuf,
    /// The line, counted from 1; none if the matter is with the file as a whole.
    pub(crate) line: Option<usize>,
    /// What was expected, and what was found.
    pub(crate) reason: String,
}

/// Where an error is, in the form that editors and terminals make a link of.
fn place(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", file.display()),
        None => file.display().to_string(),
    }
}
