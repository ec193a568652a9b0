//! What a check found.

use std::fmt;

use super::anchor::Anchor;
use crate::envelope::Position;

/// How many breaks a report lists.
const LISTED: usize = 1_000;

/// What a [`LogCheck`](super::LogCheck) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCheckReport {
    pub(super) events: u64,
    pub(super) streams: u64,
    pub(super) found: u64,
    pub(super) breaks: Vec<Break>,
    pub(super) anchor: Option<Anchor>,
}

impl LogCheckReport {
    pub(super) fn new() -> Self {
        Self {
            events: 0,
            streams: 0,
            found: 0,
            breaks: Vec::new(),
            anchor: None,
        }
    }

    pub(super) fn add(&mut self, found: Break) {
        self.found += 1;
        self.breaks.push(found);
        if self.breaks.len() >= 2 * LISTED {
            self.shorten();
        }
    }

    pub(super) fn shorten(&mut self) {
        self.breaks.sort_by_key(|found| found.position);
        self.breaks.truncate(LISTED);
    }

    /// Whether nothing speaks against the log.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.found == 0
    }

    /// How many events were checked.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many streams of chained aggregates were checked.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.streams
    }

    /// How many breaks there are: at most one for each stream of a chained aggregate, which is its
    /// first, one for each anchor, and one for each event of others.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The first 1,000 of them, in the order of the log; those without a position come first.
    #[must_use]
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// The first of them that has a position.
    #[must_use]
    pub fn first(&self) -> Option<&Break> {
        self.breaks.iter().find(|found| found.position.is_some())
    }

    /// What to keep outside of the database, and to hand to later checks. It reaches up to the last
    /// event before which no other can still appear.
    ///
    /// `None` where that is not known: on Postgres, a writer that was under way when the check began
    /// still was a second later. An import of an hour is one. Check again when it has ended; until
    /// then `health` names it.
    #[must_use]
    pub fn anchor(&self) -> Option<Anchor> {
        self.anchor
    }
}

/// A place in the log that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Break {
    /// The event that does not fit: the changed one, or the first behind what is missing. Of a stream
    /// that ends too early it is the last one that is left, of an anchor the end of what it covers.
    /// `None` where no event is left.
    pub position: Option<Position>,
    /// The stream; `None` of an anchor, and where it cannot be read.
    pub stream: Option<(String, String)>,
    /// What is wrong.
    pub kind: BreakKind,
}

/// What is wrong at a [`Break`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakKind {
    /// The row of the event cannot be read.
    Unreadable(String),
    /// The payload does not fit its hash.
    Content(String),
    /// The event has another version than the one behind its predecessor.
    Version {
        /// The version that belongs here.
        expected: u64,
    },
    /// The event stands in the log before its predecessor.
    Order,
    /// The event does not continue the chain: it, or the one before, is another.
    Link,
    /// The event has no link, though its aggregate is chained.
    Unchained,
    /// The event has a link, and the check was not told that its aggregate is chained.
    Unlisted,
    /// The head of the stream says that it ends elsewhere; `None` where there is no head.
    Head {
        /// The version that the head has.
        version: Option<u64>,
    },
    /// The events up to here are not those of an anchor.
    Anchor {
        /// Where the last anchor before it that fits reaches; the difference is behind it.
        after: Position,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "position {position}, ")?;
        }
        if let Some((aggregate_type, aggregate_id)) = &self.stream {
            write!(f, "{aggregate_type} {aggregate_id}: ")?;
        }
        self.kind.fmt(f)
    }
}

impl fmt::Display for BreakKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(reason) => write!(f, "the event cannot be read: {reason}"),
            Self::Content(reason) => f.write_str(reason),
            Self::Version { expected } => write!(f, "version {expected} belongs here"),
            Self::Order => f.write_str("the event stands before its predecessor"),
            Self::Link => f.write_str("the event does not continue the chain"),
            Self::Unchained => f.write_str("the event has no link"),
            Self::Unlisted => {
                f.write_str("the event has a link, and the check does not know its aggregate")
            }
            Self::Head {
                version: Some(version),
            } => write!(f, "the head of the stream is at version {version}"),
            Self::Head { version: None } => f.write_str("the stream has no head"),
            Self::Anchor { after } => write!(f, "not as anchored, behind position {after}"),
        }
    }
}
