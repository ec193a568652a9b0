//! Keys: what seals and opens.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::cipher::{self, Circumstances, KEY};
use super::error::{Forgotten, SealedError};
use super::keys::KeyState;
use super::subject::Subject;
use super::value::Sealed;
use crate::context::TenantId;

/// What the values of one subject are encrypted with: 32 bytes, which are overwritten in memory when
/// the last clone is dropped. For [stores of keys](super::KeyStore).
#[derive(Clone)]
pub struct SecretKey(Arc<Zeroizing<[u8; KEY]>>);

impl SecretKey {
    /// A new random key.
    ///
    /// # Errors
    ///
    /// [`SealedError::Random`].
    pub fn generate() -> Result<Self, SealedError> {
        cipher::random().map(Self::from_bytes)
    }

    /// The key of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// The key of a subject of a tenant. [`SubjectKeys::key`](super::SubjectKeys::key) hands it out.
///
/// It works as long as it lives, also after the subject is forgotten: get it for a piece of work, and
/// drop it with that. What is sealed with it after the subject was forgotten is forgotten as well.
#[derive(Debug, Clone)]
pub struct SubjectKey {
    tenant: Option<TenantId>,
    subject: Subject,
    secret: SecretKey,
}

impl SubjectKey {
    pub(crate) fn new(tenant: Option<TenantId>, subject: Subject, secret: SecretKey) -> Self {
        Self {
            tenant,
            subject,
            secret,
        }
    }

    /// Whose key it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Encrypts a value, as serde writes it.
    ///
    /// # Errors
    ///
    /// [`SealedError::Unwritable`], [`SealedError::Random`].
    pub fn seal<T: Serialize>(&self, value: &T) -> Result<Sealed<T>, SealedError> {
        let plain = serde_json::to_vec(value).map(Zeroizing::new);
        let plain = plain.map_err(|_| SealedError::Unwritable(std::any::type_name::<T>()))?;
        let content = cipher::seal(self.secret.as_bytes(), &self.circumstances(), &plain)?;
        Ok(Sealed::new(self.subject.clone(), content))
    }

    /// Decrypts a value.
    ///
    /// # Errors
    ///
    /// [`SealedError::NoKey`] for a value of another subject, [`SealedError::Altered`],
    /// [`SealedError::Content`].
    pub fn open<T: DeserializeOwned>(&self, value: &Sealed<T>) -> Result<T, SealedError> {
        let subject = value.subject();
        if *subject != self.subject {
            return Err(SealedError::NoKey(subject.clone()));
        }
        let secret = self.secret.as_bytes();
        let plain = cipher::open(secret, &self.circumstances(), value.content())
            .ok_or_else(|| SealedError::Altered(subject.clone()))?;
        // serde's own error shows what it has read.
        serde_json::from_slice(&plain).map_err(|_| SealedError::Content {
            subject: subject.clone(),
            expected: std::any::type_name::<T>(),
        })
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            purpose: "cqrs.sealed.1",
            tenant: self.tenant.as_ref(),
            subject: &self.subject,
        }
    }
}

/// The keys of several subjects of a tenant, as far as they can be had:
/// [`SubjectKeys::ring`](super::SubjectKeys::ring) gets them in one statement.
///
/// As a [`SubjectKey`], it is for a piece of work: who is forgotten later is still in it.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    /// `None` of who was forgotten.
    keys: HashMap<Subject, Result<Option<SubjectKey>, SealedError>>,
}

impl KeyRing {
    pub(super) fn new(tenant: Option<&TenantId>, found: HashMap<Subject, KeyState>) -> Self {
        let keys = found.into_iter().map(|(subject, state)| {
            let key = match state {
                KeyState::Kept(secret) => {
                    let key = SubjectKey::new(tenant.cloned(), subject.clone(), secret);
                    Ok(Some(key))
                }
                KeyState::Destroyed => Ok(None),
                KeyState::Unreadable(reason) => Err(reason),
            };
            (subject, key)
        });
        Self {
            keys: keys.collect(),
        }
    }

    /// What is in a sealed value, or that its subject was forgotten.
    ///
    /// # Errors
    ///
    /// [`SealedError::NoKey`] for a value whose key was not asked for, [`SealedError::Altered`],
    /// [`SealedError::Content`]; why its key cannot be read, where that is so.
    pub fn open<T: DeserializeOwned>(
        &self,
        value: &Sealed<T>,
    ) -> Result<Result<T, Forgotten>, SealedError> {
        let subject = value.subject();
        match self.keys.get(subject) {
            Some(Ok(Some(key))) => key.open(value).map(Ok),
            Some(Ok(None)) => Ok(Err(Forgotten::of(subject.clone()))),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(SealedError::NoKey(subject.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: Option<&str>, subject: &str, secret: u8) -> SubjectKey {
        let tenant = tenant.map(|tenant| TenantId::new(tenant).expect("a tenant"));
        let subject = Subject::new(subject).expect("a subject");
        SubjectKey::new(tenant, subject, SecretKey::from_bytes([secret; KEY]))
    }

    #[test]
    fn a_value_opens_with_its_key_alone() {
        let own = key(Some("north"), "7", 1);
        let value = own.seal(&"Ada".to_owned()).expect("it is sealed");
        assert_eq!(own.open(&value), Ok("Ada".to_owned()));
        assert!(!value.to_string().contains("Ada"));
        assert_ne!(own.seal(&"Ada".to_owned()).expect("it is sealed"), value);

        let altered = Err(SealedError::Altered(own.subject().clone()));
        for other in [
            key(Some("north"), "7", 2),
            key(Some("south"), "7", 1),
            key(None, "7", 1),
        ] {
            assert_eq!(other.open(&value), altered);
        }
        let other = key(Some("north"), "8", 1);
        assert_eq!(
            other.open(&value),
            Err(SealedError::NoKey(own.subject().clone()))
        );
        let moved = Sealed::<String>::new(other.subject().clone(), value.content());
        assert_eq!(
            other.open(&moved),
            Err(SealedError::Altered(other.subject().clone()))
        );
    }

    #[test]
    fn a_key_that_cannot_be_read_holds_up_no_other() {
        let keys = ["read", "unread", "gone"].map(|id| key(None, id, 1));
        let [read, unread, gone] = keys.each_ref().map(|key| key.subject().clone());
        let values = keys.map(|key| key.seal(&1815_u16).expect("it is sealed"));
        let reason = SealedError::Key(unread.clone());
        let found = [
            (read, KeyState::Kept(SecretKey::from_bytes([1; KEY]))),
            (unread, KeyState::Unreadable(reason.clone())),
            (gone.clone(), KeyState::Destroyed),
        ];
        let ring = KeyRing::new(None, found.into());
        let opened = values.each_ref().map(|value| ring.open(value));
        assert_eq!(
            opened,
            [Ok(Ok(1815)), Err(reason), Ok(Err(Forgotten::of(gone)))]
        );
    }

    #[test]
    fn no_bit_can_be_changed() {
        let key = key(Some("north"), "7", 1);
        let value = key.seal(&1815_u16).expect("it is sealed");
        for place in 0..value.content().len() * 8 {
            let mut content = value.content().to_vec();
            content[place / 8] ^= 1 << (place % 8);
            let changed = Sealed::<u16>::new(value.subject().clone(), content);
            assert_eq!(
                key.open(&changed),
                Err(SealedError::Altered(value.subject().clone()))
            );
        }
    }

    #[test]
    fn nothing_shows_what_is_sealed() {
        let key = key(Some("north"), "7", 77);
        let value = key.seal(&"Ada".to_owned()).expect("it is sealed");
        let other = Sealed::<u16>::new(value.subject().clone(), value.content());
        let error = key.open(&other).expect_err("it is no number");
        let shown = format!("{value:?} {key:?} {error} {error:?}");
        assert!(
            !shown.contains("Ada") && !shown.contains("77, 77"),
            "{shown}"
        );
    }
}
