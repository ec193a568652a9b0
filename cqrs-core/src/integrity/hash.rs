//! What the log keeps of an event by which a later change is noticed.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::keys::HashKey;

/// What an event of a [chained](macro@crate::Aggregate) aggregate hands on to the next one.
pub(crate) type Link = [u8; 32];

/// The hash of an event's canonical JSON: SHA-256, or HMAC-SHA-256 under a [`HashKey`].
///
/// That of a chained aggregate has a link besides, which covers everything that the store wrote of
/// the event, and the link of the event before.
///
/// # Bytes
///
/// The log holds 32 bytes where it is a plain SHA-256. Else it holds a byte that says what follows
/// (1: a link, 2: a key, 3: both), the 32 bytes of the hash, the 32 bytes of the link, and the id of
/// the key as 4 bytes, the highest first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash {
    content: [u8; 32],
    link: Option<Link>,
    key: Option<u32>,
}

/// Bytes that are no [`ContentHash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are no hash of an event")]
pub struct InvalidContentHash(usize);

const LINKED: u8 = 1;
const KEYED: u8 = 2;

impl ContentHash {
    /// The SHA-256 of this text.
    #[must_use]
    pub fn of(canonical_json: &str) -> Self {
        Self::under(None, canonical_json)
    }

    /// The hash of this text, under a key where there is one.
    pub(crate) fn under(key: Option<&HashKey>, canonical_json: &str) -> Self {
        let mut hasher = Hasher::new(key);
        hasher.update(canonical_json.as_bytes());
        Self {
            content: hasher.finish(),
            link: None,
            key: key.map(HashKey::id),
        }
    }

    /// The same, with a link.
    pub(crate) fn linked(self, link: Link) -> Self {
        Self {
            link: Some(link),
            ..self
        }
    }

    /// Reads it from the [bytes](Self#bytes) that the log holds.
    ///
    /// # Errors
    ///
    /// [`InvalidContentHash`] where they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidContentHash> {
        let invalid = InvalidContentHash(bytes.len());
        let array = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| invalid);
        if bytes.len() == 32 {
            return Ok(Self {
                content: array(bytes)?,
                link: None,
                key: None,
            });
        }
        let (flags, rest) = bytes.split_first().ok_or(invalid)?;
        if !(LINKED..=LINKED | KEYED).contains(flags) {
            return Err(invalid);
        }
        let (content, mut rest) = rest.split_at_checked(32).ok_or(invalid)?;
        let mut hash = Self {
            content: array(content)?,
            link: None,
            key: None,
        };
        if flags & LINKED != 0 {
            let (link, others) = rest.split_at_checked(32).ok_or(invalid)?;
            hash.link = Some(array(link)?);
            rest = others;
        }
        if flags & KEYED != 0 {
            let (key, others) = rest.split_first_chunk::<4>().ok_or(invalid)?;
            hash.key = Some(u32::from_be_bytes(*key));
            rest = others;
        }
        match rest {
            [] => Ok(hash),
            _ => Err(invalid),
        }
    }

    /// The [bytes](Self#bytes) that the log holds.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let flags = match (self.link, self.key) {
            (None, None) => return self.content.to_vec(),
            (Some(_), None) => LINKED,
            (None, Some(_)) => KEYED,
            (Some(_), Some(_)) => LINKED | KEYED,
        };
        let mut bytes = Vec::with_capacity(69);
        bytes.push(flags);
        bytes.extend_from_slice(&self.content);
        bytes.extend(self.link.iter().flatten());
        bytes.extend(self.key.map(u32::to_be_bytes).iter().flatten());
        bytes
    }

    /// The hash of the content alone.
    #[must_use]
    pub fn content(&self) -> [u8; 32] {
        self.content
    }

    /// What the next event of a chained aggregate covers; `None` of others.
    #[must_use]
    pub fn link(&self) -> Option<[u8; 32]> {
        self.link
    }

    /// The id of the key that it was made with; `None` of a plain SHA-256.
    #[must_use]
    pub fn key_id(&self) -> Option<u32> {
        self.key
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.content
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self}")?;
        if let Some(key) = self.key {
            write!(f, ", key {key}")?;
        }
        if self.link.is_some() {
            f.write_str(", linked")?;
        }
        f.write_str(")")
    }
}

/// SHA-256, or HMAC where there is a key.
pub(super) enum Hasher {
    Plain(Sha256),
    Keyed(Box<Hmac<Sha256>>),
}

impl Hasher {
    pub(super) fn new(key: Option<&HashKey>) -> Self {
        match key {
            None => Self::Plain(Sha256::new()),
            Some(key) => Self::Keyed(Box::new(
                Hmac::new_from_slice(key.secret()).expect("HMAC takes keys of any length"),
            )),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(hasher) => Digest::update(hasher, bytes),
            Self::Keyed(hasher) => Mac::update(hasher.as_mut(), bytes),
        }
    }

    /// Bytes whose number varies, with their number.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.update(&(bytes.len() as u64).to_be_bytes());
        self.update(bytes);
    }

    /// The same of bytes that may be absent.
    pub(super) fn optional(&mut self, bytes: Option<&[u8]>) {
        self.update(&[u8::from(bytes.is_some())]);
        if let Some(bytes) = bytes {
            self.bytes(bytes);
        }
    }

    pub(super) fn finish(self) -> [u8; 32] {
        match self {
            Self::Plain(hasher) => hasher.finalize().into(),
            Self::Keyed(hasher) => hasher.finalize().into_bytes().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_bytes_come_back() {
        let key = HashKey::new(0x0102_0304, [7; 32]);
        for plain in [ContentHash::of("{}"), ContentHash::under(Some(&key), "{}")] {
            for hash in [plain, plain.linked([9; 32])] {
                assert_eq!(ContentHash::from_bytes(&hash.to_bytes()), Ok(hash));
            }
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let linked = ContentHash::of("{}").linked([9; 32]).to_bytes();
        let mut unknown = linked.clone();
        unknown[0] = 4;
        for bytes in [&[][..], &[0; 33], &linked[..64], &unknown] {
            assert!(ContentHash::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_key_is_hmac_of_rfc_4231() {
        // Its second test case has a short key; HMAC fills that up with zeros.
        let mut secret = [0; 32];
        secret[..4].copy_from_slice(b"Jefe");
        let key = HashKey::new(1, secret);
        let hash = ContentHash::under(Some(&key), "what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hash.to_string(), expected);
    }
}
