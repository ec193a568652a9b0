//! A value under seal.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use super::subject::Subject;

/// A `T` that is encrypted for a subject.
///
/// It holds cipher text alone. [`SubjectKey::seal`](super::SubjectKey::seal) makes it, and
/// [`KeyRing::open`](super::KeyRing::open) shows what is in it, or that its subject was
/// [forgotten](super::Forgotten). It can be a field of events, aggregates, value objects, children,
/// read models and commands; of those that are rows it is a column of text. It is copied from one to
/// the other without a key.
///
/// Two values are equal where they are copies of each other. What is sealed twice is never equal, so
/// conditions on such a column find nothing by what is in it.
///
/// What is visible: the subject, and about how long the content is.
pub struct Sealed<T> {
    subject: Subject,
    /// Nonce, cipher text and tag.
    content: Arc<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T> Sealed<T> {
    pub(super) fn new(subject: Subject, content: impl Into<Arc<[u8]>>) -> Self {
        Self {
            subject,
            content: content.into(),
            of: PhantomData,
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }
}

impl<T> Clone for Sealed<T> {
    fn clone(&self) -> Self {
        Self::new(self.subject.clone(), Arc::clone(&self.content))
    }
}

impl<T> PartialEq for Sealed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.subject == other.subject && self.content == other.content
    }
}

impl<T> Eq for Sealed<T> {}

impl<T> Hash for Sealed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.subject.hash(state);
        self.content.hash(state);
    }
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The end of the tag: where two differ, this does.
        let end = self.content.len().saturating_sub(4);
        let end = self.content[end..].iter().map(|byte| format!("{byte:02x}"));
        f.debug_struct("Sealed")
            .field("subject", &self.subject.as_str())
            .field("content", &format_args!("..{}", end.collect::<String>()))
            .finish()
    }
}
