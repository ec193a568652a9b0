//! Keys of hashes.

use std::fmt;
use std::sync::Arc;

use super::hash::ContentHash;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::payload::PayloadError;

/// A secret under which the hashes of events are made, so that who can write to the database alone
/// cannot make them.
///
/// Its id stands in the log with each hash; its secret never does.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey {
    id: u32,
    secret: [u8; 32],
}

impl HashKey {
    /// The key with this id: 32 random bytes, from wherever the application keeps its secrets.
    #[must_use]
    pub fn new(id: u32, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The keys of a store's hashes: one that makes them, and former ones that still verify. Cheap to
/// clone.
///
/// To rotate, make the new key the current one and keep the old one. Where several processes write,
/// give all of them the new key as a [former](Self::and) one first. A key that others may know is to
/// be [bounded](Self::and_until): else they can go on to make hashes with it.
///
/// # Example
///
/// ```
/// use cqrs_core::{HashKey, HashKeys, Position};
///
/// let (new, old) = ([1; 32], [2; 32]);
/// let keys = HashKeys::new(HashKey::new(2, new))
///     .and_until(HashKey::new(1, old), Position(40_000))?
///     .unkeyed_until(Position(12_000));
/// assert_eq!(keys.current().id(), 2);
/// # Ok::<(), cqrs_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HashKeys {
    current: Arc<HashKey>,
    /// With where the last event may be that they verify.
    others: Vec<(Arc<HashKey>, Option<Position>)>,
    unkeyed_until: Position,
}

impl HashKeys {
    /// One key, for all hashes that are made from now on.
    #[must_use]
    pub fn new(current: HashKey) -> Self {
        Self {
            current: Arc::new(current),
            others: Vec::new(),
            unkeyed_until: Position::START,
        }
    }

    /// One more key, which only verifies: events at any position.
    ///
    /// # Errors
    ///
    /// Of kind [`Usage`](StoreErrorKind::Usage) where there is one with its id: hashes say no more of
    /// the key that they were made with.
    pub fn and(self, key: HashKey) -> Result<Self> {
        self.with(key, None)
    }

    /// One more key, which only verifies, and only events up to this position: the last one that was
    /// made with it. Whoever has learned the key since cannot pass off anything behind it; what is
    /// before it they can, but not past a chain or an [anchor](crate::integrity::Anchor) that is out
    /// of their reach.
    ///
    /// # Errors
    ///
    /// As [`and`](Self::and).
    pub fn and_until(self, key: HashKey, position: Position) -> Result<Self> {
        self.with(key, Some(position))
    }

    fn with(mut self, key: HashKey, until: Option<Position>) -> Result<Self> {
        if self.find(key.id).is_some() {
            let message = format!("there are two keys of hashes with the id {}", key.id);
            return Err(Error::store(StoreErrorKind::Usage, message));
        }
        self.others.push((Arc::new(key), until));
        Ok(self)
    }

    /// Events up to this position may have plain hashes: those of a log that had no keys before.
    /// None may, unless told.
    #[must_use]
    pub fn unkeyed_until(mut self, position: Position) -> Self {
        self.unkeyed_until = position;
        self
    }

    /// The key that hashes are made with.
    #[must_use]
    pub fn current(&self) -> &HashKey {
        &self.current
    }

    /// The key with this id, and up to where it verifies.
    fn find(&self, id: u32) -> Option<(&HashKey, Option<Position>)> {
        if self.current.id == id {
            return Some((&self.current, None));
        }
        let mut others = self.others.iter();
        let (key, until) = others.find(|(key, _)| key.id == id)?;
        Some((key, *until))
    }
}

/// Whether an event may lack what came into use behind a position. The store writes none before the
/// first position, where every other limit would excuse it.
pub(super) fn is_excused(position: Position, until: Position) -> bool {
    position > Position::START && position <= until
}

/// The key that the hash of an event was made with; `None` of a plain one.
///
/// # Errors
///
/// What speaks against the hash: a key that is not known, or not in use there, or none where one is
/// needed.
pub(super) fn key_of(
    keys: Option<&HashKeys>,
    hash: ContentHash,
    position: Position,
) -> Result<Option<&HashKey>, String> {
    match (hash.key_id(), keys) {
        (None, Some(keys)) if !is_excused(position, keys.unkeyed_until) => {
            Err("its hash was made without a key".to_owned())
        }
        (None, _) => Ok(None),
        (Some(id), keys) => match keys.and_then(|keys| keys.find(id)) {
            None => Err(format!("the key {id} of its hash is not known")),
            Some((_, Some(until))) if !is_excused(position, until) => Err(format!(
                "the key {id} of its hash was in use up to position {until} only"
            )),
            Some((key, _)) => Ok(Some(key)),
        },
    }
}

/// Compares an event's payload with its hash, for authors of stores.
///
/// # Errors
///
/// [`PayloadError::Altered`] where they do not belong together.
pub(crate) fn verify(
    keys: Option<&HashKeys>,
    event_type: &str,
    payload: &str,
    hash: ContentHash,
    position: Position,
) -> Result<(), PayloadError> {
    let altered = |reason: String| PayloadError::Altered {
        event_type: event_type.to_owned(),
        reason,
    };
    let key = key_of(keys, hash, position).map_err(altered)?;
    let made = ContentHash::under(key, payload);
    if made.content() == hash.content() {
        return Ok(());
    }
    Err(altered("it does not fit its hash".to_owned()))
}

/// Whether the hashes of events are compared when they are read, and the keys to make and compare
/// them. For authors of stores.
#[derive(Debug, Clone, Default)]
pub struct Hashing {
    /// The keys; hashes are plain where there are none.
    pub keys: Option<HashKeys>,
    /// Whether events are compared when they are read.
    pub verifies: bool,
}

impl Hashing {
    /// The key that hashes are made with.
    #[must_use]
    pub(crate) fn key(&self) -> Option<&HashKey> {
        self.keys.as_ref().map(HashKeys::current)
    }

    /// Compares an event that was read with its hash, where that is wanted.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Altered`] where they do not belong together.
    pub fn verify(&self, event: &Envelope<RawPayload>) -> Result<(), PayloadError> {
        self.verify_payload(
            event.event_type(),
            event.payload().as_str(),
            event.content_hash(),
            event.position(),
        )
    }

    /// As [`verify`](Self::verify), of its parts.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify_payload(
        &self,
        event_type: &str,
        payload: &str,
        hash: ContentHash,
        position: Position,
    ) -> Result<(), PayloadError> {
        match self.verifies {
            true => verify(self.keys.as_ref(), event_type, payload, hash, position),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_keys_verify_and_unknown_ones_do_not() {
        let (old, new) = (HashKey::new(1, [1; 32]), HashKey::new(2, [2; 32]));
        let made = ContentHash::under(Some(&old), "{}");
        let check = |keys: &HashKeys, hash, position| {
            verify(Some(keys), "account.opened", "{}", hash, Position(position)).is_ok()
        };
        let rotated = HashKeys::new(new.clone()).and(old).expect("another id");
        assert!(check(&rotated, made, 5));
        assert!(!check(&HashKeys::new(new), made, 5));
        let forged = HashKeys::new(HashKey::new(1, [3; 32]));
        assert!(!check(&forged, made, 5));
        let plain = ContentHash::of("{}");
        assert!(!check(&rotated, plain, 5));
        let excusing = rotated.unkeyed_until(Position(5));
        assert!(check(&excusing, plain, 5) && !check(&excusing, plain, -5));
    }

    #[test]
    fn a_former_key_verifies_up_to_its_end() {
        let (old, new) = (HashKey::new(1, [1; 32]), HashKey::new(2, [2; 32]));
        let keys = HashKeys::new(new.clone()).and_until(old.clone(), Position(5));
        let keys = keys.expect("another id");
        let check = |key: &HashKey, position| {
            let (keys, position) = (Some(&keys), Position(position));
            let made = ContentHash::under(Some(key), "{}");
            let verified = verify(keys, "account.opened", "{}", made, position);
            verified.map_err(|error| error.to_string())
        };
        assert_eq!(check(&old, 5), Ok(()));
        assert_eq!(check(&new, 6), Ok(()));
        for position in [6, 0, -1] {
            let error = check(&old, position).expect_err("it is behind the end");
            let reason = "the key 1 of its hash was in use up to position 5 only";
            assert!(error.contains(reason), "at {position}: {error}");
        }
    }

    #[test]
    fn an_id_is_of_one_key() {
        let key = |id, secret| HashKey::new(id, [secret; 32]);
        let both = HashKeys::new(key(1, 1)).and(key(2, 2));
        for id in [1, 2] {
            let refused = both.as_ref().expect("two ids").clone().and(key(id, 3));
            assert_eq!(
                refused.expect_err("it is in use").to_string(),
                format!("there are two keys of hashes with the id {id}")
            );
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", HashKeys::new(HashKey::new(1, [77; 32])));
        assert!(!shown.contains("77"), "{shown}");
    }
}
