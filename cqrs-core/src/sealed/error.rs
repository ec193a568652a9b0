//! What can go wrong with sealed values. No message shows what is sealed.

use super::subject::{InvalidSubject, Subject};
use crate::error::{DomainError, Error};

/// What is left of data whose subject was forgotten.
///
/// It is a fact, not a failure: opening returns it apart from errors. `?` makes an
/// [`Error::Domain`] of it, which [`Error::domain`] gives back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subject {subject} was forgotten")]
pub struct Forgotten {
    subject: Subject,
}

impl Forgotten {
    /// That this subject was forgotten.
    #[must_use]
    pub fn of(subject: Subject) -> Self {
        Self { subject }
    }

    /// Who was forgotten.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl DomainError for Forgotten {}

/// Why a value could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// There is no key for the subject of the value, and it was not forgotten: its value comes from
    /// another tenant or database, the key was lost, or was not asked for.
    #[error("there is no key for subject {0} here: it is of another tenant, or was not asked for")]
    NoKey(Subject),
    /// The value is not the one that was sealed, was sealed for another subject or tenant, or the key
    /// is another one.
    #[error(
        "a value sealed for subject {0} does not open with its key: one of the two was altered"
    )]
    Altered(Subject),
    /// What is sealed is no value of the type that it is opened as.
    #[error("what is sealed for subject {subject} is no {expected}")]
    Content {
        /// Whose value it is.
        subject: Subject,
        /// The type.
        expected: &'static str,
    },
    /// The value cannot be written as JSON.
    #[error("a value of type {0} cannot be sealed: serde cannot write it as JSON")]
    Unwritable(&'static str),
    /// The key of a subject is kept under a master key that the store was not given.
    #[error(
        "the key of subject {subject} is under master key {id}, which this store was not given"
    )]
    NoMasterKey {
        /// Whose key it is.
        subject: Subject,
        /// The id of the master key.
        id: u32,
    },
    /// The key of a subject is kept without a master key, and the store takes none like that.
    #[error(
        "the key of subject {0} is kept without a master key, and this store takes none like that: \
         see MasterKeys::and_keys_in_clear"
    )]
    InClear(Subject),
    /// The key of a subject is not what was kept, or was kept under another master key of this id.
    #[error(
        "the key of subject {0} cannot be read: its row was altered, or the master key is another \
         one of the same id"
    )]
    Key(Subject),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
}

impl From<InvalidSubject> for Error {
    fn from(error: InvalidSubject) -> Self {
        Self::other(error)
    }
}
