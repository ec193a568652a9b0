//! Idempotency keys: a command that is sent twice is done once.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::envelope::Position;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::integrity::ContentHash;
use crate::payload::canonical_json;
use crate::unit_of_work::CommitReceipt;

/// Names a command, so that its repetition is recognised: a client makes one up for each thing it
/// wants done, and sends it with every try (the `Idempotency-Key` header of HTTP is one).
///
/// Keys of different tenants are different.
///
/// # Example
///
/// ```
/// use cqrs_core::IdempotencyKey;
///
/// let key = IdempotencyKey::new("4be1f0a2")?.for_request(&("dispatch", 7))?;
/// assert_eq!(key.as_str(), "4be1f0a2");
/// assert!(IdempotencyKey::new("").is_err());
/// # Ok::<(), cqrs_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    key: String,
    fingerprint: Option<ContentHash>,
}

impl IdempotencyKey {
    /// What the keys of messages in inboxes begin with.
    pub const INBOX: &'static str = "cqrs.inbox/";

    /// A key that no client can make up.
    pub(crate) fn of_framework(key: String) -> Self {
        Self {
            key,
            fingerprint: None,
        }
    }

    /// The key with this text.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error unless it is 1 to 255 bytes without NUL, and
    /// where it begins with `cqrs.inbox/`: a client could make a message look processed.
    pub fn new(key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        if key.starts_with(Self::INBOX) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!(
                    "{key:?} is no idempotency key: `{}` is for inboxes",
                    Self::INBOX
                ),
            ));
        }
        if !(1..=255).contains(&key.len()) || key.contains('\0') {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!(
                    "{key:?} is no idempotency key: it takes 1 to 255 bytes of text without NUL"
                ),
            ));
        }
        Ok(Self {
            key,
            fingerprint: None,
        })
    }

    /// Ties the key to the content of a request. The same key with another content is then
    /// [refused](StoreErrorKind::KeyReused), instead of answered with the receipt of something else.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where the request cannot be written as JSON.
    pub fn for_request<C: Serialize>(mut self, request: &C) -> Result<Self> {
        let json = serde_json::to_value(request).map_err(|cause| {
            let message = "the request of an idempotency key cannot be written as JSON";
            StoreError::new(StoreErrorKind::Usage, message).with_source(cause)
        })?;
        self.fingerprint = Some(ContentHash::of(&canonical_json(&json)));
        Ok(self)
    }

    /// The text of the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// The hash of the request that it is tied to.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&ContentHash> {
        self.fingerprint.as_ref()
    }

    /// The error of a commit that finds the key recorded by another. It is retryable: the next
    /// try finds the other's receipt.
    #[must_use]
    pub fn taken(&self) -> Error {
        Error::store(
            StoreErrorKind::Contention,
            format!("idempotency key {self} was used by another commit meanwhile"),
        )
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.key)
    }
}

/// What a store keeps under an [`IdempotencyKey`], in the transaction of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedReceipt {
    /// The hash of the request that the key was tied to.
    pub fingerprint: Option<ContentHash>,
    /// What the work returned, as JSON.
    pub output: String,
    /// The events of the commit.
    pub events: Vec<Uuid>,
    /// The position of the last of them.
    pub position: Option<Position>,
}

impl RecordedReceipt {
    /// The receipt that the first commit returned.
    pub(crate) fn into_receipt<T: DeserializeOwned>(
        self,
        key: &IdempotencyKey,
    ) -> Result<CommitReceipt<T>> {
        if self.fingerprint != key.fingerprint {
            return Err(Error::store(
                StoreErrorKind::KeyReused,
                format!("idempotency key {key} was used for another request"),
            ));
        }
        let output = serde_json::from_str(&self.output).map_err(|cause| {
            Error::other(format!(
                "the output recorded under idempotency key {key} cannot be read: {cause}"
            ))
        })?;
        Ok(CommitReceipt::new(self.events, self.position).with_output(output))
    }
}
