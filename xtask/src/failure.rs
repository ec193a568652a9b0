//! The one error type: whatever goes wrong here ends up as a message on a terminal.

use std::fmt;

/// What a command of this tool returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command stopped, in words for the person who ran it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure that says `message`.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// A failure of `doing` something, because of `cause`.
    pub(crate) fn of(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self(format!("{doing}: {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
