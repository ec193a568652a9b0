//! Whose data it is.

use std::fmt;
use std::sync::Arc;

/// The person, or whatever else, that data is about, and that can be forgotten: mostly the id of an
/// aggregate.
///
/// Subjects belong to the tenant of the context that asks for their keys. A subject stands in clear
/// beside each value that is sealed for it, and stays when it is forgotten: take a random id, never a
/// name or an address.
///
/// # Example
///
/// ```
/// use cqrs_core::sealed::Subject;
///
/// let subject = Subject::new(42)?;
/// assert_eq!(subject.as_str(), "42");
/// assert!(Subject::new("").is_err());
/// # Ok::<(), cqrs_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

/// Text that cannot name a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subject is 1 to 255 bytes of text without NUL")]
#[non_exhaustive]
pub struct InvalidSubject;

impl Subject {
    /// The subject with this id.
    ///
    /// # Errors
    ///
    /// [`InvalidSubject`] where its text is empty, above 255 bytes, or holds a NUL character.
    pub fn new(id: impl fmt::Display) -> Result<Self, InvalidSubject> {
        let id = id.to_string();
        if !(1..=255).contains(&id.len()) || id.contains('\0') {
            return Err(InvalidSubject);
        }
        Ok(Self(id.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({:?})", &self.0)
    }
}
