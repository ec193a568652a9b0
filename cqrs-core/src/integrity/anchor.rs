//! Anchors: what was true of a log, kept outside of its database.

use std::fmt;
use std::str::FromStr;

use super::hash::Hasher;
use crate::envelope::{Envelope, Position, RawPayload};

/// A digest of all events of chained aggregates up to a position, in the order of the log.
///
/// Keep it where those who can write to the database cannot: then nothing before it can be changed,
/// moved or removed unnoticed, not even a whole stream with its head. It is text to store and parse.
///
/// ```
/// # use cqrs_core::integrity::Anchor;
/// let text = format!("cqrs1:42:40:{}", "ab".repeat(32));
/// let anchor: Anchor = text.parse()?;
/// assert_eq!(anchor.events(), 40);
/// assert_eq!(anchor.to_string(), text);
/// # Ok::<(), cqrs_core::integrity::InvalidAnchor>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Anchor {
    position: Position,
    events: u64,
    digest: [u8; 32],
}

/// Text that is no [`Anchor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no anchor of a log: expected cqrs1:<position>:<events>:<64 hexadecimal digits>")]
pub struct InvalidAnchor;

impl Anchor {
    /// Before the first event.
    pub(super) const START: Self = Self {
        position: Position::START,
        events: 0,
        digest: [0; 32],
    };

    /// The position up to which it reaches.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many events it covers.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether it covers the same events, wherever the position is up to which it reaches.
    pub(super) fn covers_the_same(&self, other: &Self) -> bool {
        (self.events, self.digest) == (other.events, other.digest)
    }

    /// Goes on to the next event of the log. Those without a link may be removed by a retention
    /// policy, and are not covered.
    pub(super) fn add(&mut self, event: &Envelope<RawPayload>) {
        self.position = event.position();
        let Some(link) = event.content_hash().link() else {
            return;
        };
        let mut hasher = Hasher::new(None);
        hasher.update(&self.digest);
        hasher.update(&event.position().0.to_be_bytes());
        hasher.update(&event.recorded_at().timestamp_micros().to_be_bytes());
        hasher.update(&link);
        self.digest = hasher.finish();
        self.events += 1;
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cqrs1:{}:{}:", self.position, self.events)?;
        let mut digest = self.digest.iter();
        digest.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({self})")
    }
}

impl FromStr for Anchor {
    type Err = InvalidAnchor;

    fn from_str(text: &str) -> Result<Self, InvalidAnchor> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(InvalidAnchor);
        if next()? != "cqrs1" {
            return Err(InvalidAnchor);
        }
        let position = next()?.parse().map_err(|_| InvalidAnchor)?;
        let events = next()?.parse().map_err(|_| InvalidAnchor)?;
        let hex = next()?.as_bytes();
        if hex.len() != 64 || parts.next().is_some() {
            return Err(InvalidAnchor);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidAnchor)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidAnchor)?;
        }
        Ok(Self {
            position: Position(position),
            events,
            digest,
        })
    }
}
