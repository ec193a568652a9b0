//! Keys that keys are kept under.

use std::fmt;

use super::cipher::{self, Circumstances, KEY};
use super::error::SealedError;
use super::key::SecretKey;
use super::subject::Subject;
use crate::context::TenantId;
use crate::error::{Error, Result, StoreErrorKind};

/// A secret under which the keys of subjects are kept, so that who can read the database alone opens
/// nothing.
///
/// Its id stands beside each key; its secret never does.
#[derive(Clone)]
pub struct MasterKey {
    id: u32,
    secret: SecretKey,
}

impl MasterKey {
    /// The key with this id: 32 random bytes, from wherever the application keeps its secrets. Another
    /// secret has another id.
    #[must_use]
    pub fn new(id: u32, secret: [u8; KEY]) -> Self {
        Self {
            id,
            secret: SecretKey::from_bytes(secret),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The master keys of a store: one for new keys of subjects, and former ones for those that are kept
/// under them, which are needed as long as there are such keys. SQL stores put those under the current
/// one with `rewrap_subject_keys`.
///
/// # Example
///
/// ```
/// use cqrs_core::sealed::{MasterKey, MasterKeys};
///
/// let (new, old) = ([1; 32], [2; 32]);
/// let keys = MasterKeys::new(MasterKey::new(2, new)).and(MasterKey::new(1, old))?;
/// assert_eq!(keys.current().id(), 2);
/// # Ok::<(), cqrs_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MasterKeys {
    current: MasterKey,
    former: Vec<MasterKey>,
    reads_clear: bool,
}

impl MasterKeys {
    /// One key, for all keys of subjects that are made from now on.
    #[must_use]
    pub fn new(current: MasterKey) -> Self {
        Self {
            current,
            former: Vec::new(),
            reads_clear: false,
        }
    }

    /// One more key, which only reads.
    ///
    /// # Errors
    ///
    /// Of kind [`Usage`](StoreErrorKind::Usage) where there is one with its id.
    pub fn and(mut self, key: MasterKey) -> Result<Self> {
        if self.find(key.id).is_some() {
            let message = format!("there are two master keys with the id {}", key.id);
            return Err(Error::store(StoreErrorKind::Usage, message));
        }
        self.former.push(key);
        Ok(self)
    }

    /// Has keys read that were kept before the store had a master key. Only where there are some: who
    /// can write the table can put a key there that they know, and would read what is sealed with it.
    #[must_use]
    pub fn and_keys_in_clear(mut self) -> Self {
        self.reads_clear = true;
        self
    }

    /// The key for new keys of subjects.
    #[must_use]
    pub fn current(&self) -> &MasterKey {
        &self.current
    }

    /// How the bytes begin that [`StoredSecret::write`] makes under the current key, for authors of
    /// stores: what begins otherwise is to be written anew when master keys are exchanged.
    #[must_use]
    pub fn prefix(&self) -> [u8; 5] {
        let mut prefix = [UNDER_MASTER_KEY; 5];
        prefix[1..].copy_from_slice(&self.current.id.to_be_bytes());
        prefix
    }

    fn find(&self, id: u32) -> Option<&MasterKey> {
        let mut keys = std::iter::once(&self.current).chain(&self.former);
        keys.find(|key| key.id == id)
    }
}

/// The key of a subject as a database keeps it, for authors of stores: under a master key, or in
/// clear where there are none.
#[derive(Debug)]
pub struct StoredSecret<'a> {
    /// The master keys.
    pub keys: Option<&'a MasterKeys>,
    /// The tenant of the subject.
    pub tenant: Option<&'a TenantId>,
    /// Whose key it is.
    pub subject: &'a Subject,
}

const IN_CLEAR: u8 = 0;
const UNDER_MASTER_KEY: u8 = 1;

impl StoredSecret<'_> {
    /// The bytes to keep.
    ///
    /// # Errors
    ///
    /// [`SealedError::Random`].
    pub fn write(&self, secret: &SecretKey) -> Result<Vec<u8>, SealedError> {
        let Some(keys) = self.keys else {
            return Ok([&[IN_CLEAR], secret.as_bytes().as_slice()].concat());
        };
        let master = keys.current();
        let under = cipher::seal(
            master.secret.as_bytes(),
            &self.circumstances(),
            secret.as_bytes(),
        )?;
        Ok([keys.prefix().as_slice(), &under].concat())
    }

    /// The key that was kept.
    ///
    /// # Errors
    ///
    /// [`SealedError::NoMasterKey`], [`SealedError::InClear`], [`SealedError::Key`].
    pub fn read(&self, bytes: &[u8]) -> Result<SecretKey, SealedError> {
        let unreadable = || SealedError::Key(self.subject.clone());
        let secret = match bytes.split_first() {
            Some((&IN_CLEAR, _)) if self.keys.is_some_and(|keys| !keys.reads_clear) => {
                return Err(SealedError::InClear(self.subject.clone()));
            }
            Some((&IN_CLEAR, secret)) => <[u8; KEY]>::try_from(secret).ok(),
            Some((&UNDER_MASTER_KEY, rest)) => {
                let (id, under) = rest.split_first_chunk().ok_or_else(unreadable)?;
                let id = u32::from_be_bytes(*id);
                let master = self.keys.and_then(|keys| keys.find(id));
                let master = master.ok_or_else(|| SealedError::NoMasterKey {
                    subject: self.subject.clone(),
                    id,
                })?;
                let secret = cipher::open(master.secret.as_bytes(), &self.circumstances(), under);
                secret.and_then(|secret| <[u8; KEY]>::try_from(secret.as_slice()).ok())
            }
            _ => None,
        };
        secret.map(SecretKey::from_bytes).ok_or_else(unreadable)
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            purpose: "cqrs.subject_key.1",
            tenant: self.tenant,
            subject: self.subject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_the_master_key_they_are_kept_under() {
        let subject = Subject::new("7").expect("a subject");
        let tenant = TenantId::new("north").expect("a tenant");
        let stored = |keys| StoredSecret {
            keys,
            tenant: Some(&tenant),
            subject: &subject,
        };
        let secret = SecretKey::generate().expect("random bytes");
        let old = MasterKeys::new(MasterKey::new(1, [1; 32]));
        let kept = stored(Some(&old)).write(&secret).expect("it is written");
        let read = |keys| {
            let read = stored(keys).read(&kept);
            read.map(|read| read.as_bytes() == secret.as_bytes())
        };
        assert_eq!(read(Some(&old)), Ok(true));
        assert!(kept.starts_with(&old.prefix()));
        let rotated = MasterKeys::new(MasterKey::new(2, [2; 32])).and(MasterKey::new(1, [1; 32]));
        let rotated = rotated.expect("another id");
        let again = rotated.clone().and(MasterKey::new(1, [3; 32]));
        assert_eq!(
            again.expect_err("it is in use").to_string(),
            "there are two master keys with the id 1"
        );
        assert_eq!(read(Some(&rotated)), Ok(true));
        assert!(!kept.starts_with(&rotated.prefix()));
        let unknown = SealedError::NoMasterKey {
            subject: subject.clone(),
            id: 1,
        };
        assert_eq!(read(None), Err(unknown.clone()));
        let new = MasterKeys::new(MasterKey::new(2, [2; 32]));
        assert_eq!(read(Some(&new)), Err(unknown));
        let wrong = MasterKeys::new(MasterKey::new(1, [3; 32]));
        assert_eq!(read(Some(&wrong)), Err(SealedError::Key(subject.clone())));
    }

    #[test]
    fn keys_in_clear_are_read_where_that_is_said() {
        let subject = Subject::new("7").expect("a subject");
        let stored = |keys| StoredSecret {
            keys,
            tenant: None,
            subject: &subject,
        };
        let secret = SecretKey::from_bytes([9; 32]);
        let kept = stored(None).write(&secret).expect("it is written");
        let keys = MasterKeys::new(MasterKey::new(1, [1; 32]));
        let refused = stored(Some(&keys)).read(&kept);
        assert_eq!(refused.err(), Some(SealedError::InClear(subject.clone())));
        let keys = keys.clone().and_keys_in_clear();
        let read = stored(Some(&keys)).read(&kept).expect("it is read");
        assert_eq!(read.as_bytes(), secret.as_bytes());
        for altered in [&[][..], &[0, 1, 2], &[1, 0, 0], &[7; 33]] {
            let read = stored(Some(&keys)).read(altered);
            assert_eq!(read.err(), Some(SealedError::Key(subject.clone())));
        }
    }
}
