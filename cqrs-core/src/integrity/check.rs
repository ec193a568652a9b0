//! The check of a whole log.

use std::collections::BTreeMap;
use std::fmt;

use super::anchor::Anchor;
use super::chain::LinkedEvent;
use super::hash::Link;
use super::keys::{self, HashKeys, Hashing};
use super::report::{Break, BreakKind, LogCheckReport};
use crate::aggregate::AggregateRoot;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::mapping::{ColumnValue, Key, Table, Value, ValueRow};
use crate::payload::PayloadError;
use crate::staging::ChangeMarker;

/// What to check of a log: the hashes of all events, the chains of aggregates, and anchors of former
/// checks.
///
/// Which aggregates are chained the code says, not the log: what is in the database is what is
/// doubted.
///
/// # Example
///
/// ```
/// # use cqrs_core::{AggregateRoot, integrity::{Anchor, LogCheck}};
/// # fn example<Account: AggregateRoot, Contract: AggregateRoot>(kept: Anchor) {
/// let check = LogCheck::new()
///     .chained::<Account>()
///     .chained::<Contract>()
///     .anchored(kept);
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct LogCheck {
    chained: Vec<ChainedAggregate>,
    anchors: Vec<Anchor>,
    unchained_until: Position,
}

/// An aggregate type whose streams are chains, for authors of stores.
#[derive(Clone, Copy)]
pub struct ChainedAggregate {
    /// Its name in the log.
    pub aggregate_type: &'static str,
    /// Its table.
    pub table: &'static Table,
    key: fn(&str) -> Option<Value>,
    id: fn(Value) -> Option<String>,
}

impl ChainedAggregate {
    fn of<A: AggregateRoot>() -> Self {
        Self {
            aggregate_type: A::TYPE,
            table: A::table(),
            key: |id| id.parse::<A::Id>().ok()?.to_value().ok(),
            id: |key| {
                let row = ValueRow::new(vec![key]);
                let id = A::Id::read_column(&row, 0).ok()??;
                Some(id.to_string())
            },
        }
    }

    /// The value of the key column of the aggregate with an id.
    #[must_use]
    pub fn key(&self, aggregate_id: &str) -> Option<Value> {
        (self.key)(aggregate_id)
    }

    /// The id of the aggregate whose key column has a value.
    #[must_use]
    pub fn id(&self, key: Value) -> Option<String> {
        (self.id)(key)
    }
}

impl fmt::Debug for ChainedAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.aggregate_type)
    }
}

impl LogCheck {
    /// The hashes of all events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// And the chains of this aggregate.
    #[must_use]
    pub fn chained<A: AggregateRoot>(mut self) -> Self {
        self.chained.push(ChainedAggregate::of::<A>());
        self
    }

    /// And that the log is as it was when this anchor was made.
    #[must_use]
    pub fn anchored(mut self, anchor: Anchor) -> Self {
        self.anchors.push(anchor);
        self.anchors.sort_by_key(Anchor::position);
        self
    }

    /// Events up to this position may lack their link: those of aggregates that were not chained
    /// before. None may, unless told. Of those without a link some may have left the log, as with
    /// retention.
    #[must_use]
    pub fn unchained_until(mut self, position: Position) -> Self {
        self.unchained_until = position;
        self
    }

    /// The aggregates whose chains are checked.
    #[must_use]
    pub fn aggregates(&self) -> &[ChainedAggregate] {
        &self.chained
    }
}

/// An event as a check reads it, for authors of stores.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its position.
    pub position: Position,
    /// The event, or why it cannot be read.
    pub event: Result<Envelope<RawPayload>, String>,
    /// Whether it is marked as one of an event-sourced aggregate.
    pub is_sourced: bool,
}

/// A check at work, for authors of stores.
///
/// All events come first, in the order of the log. Then, for each chained aggregate, its events come
/// by id and version, and the heads of the streams that have [ended](Self::ended) meanwhile; last
/// the heads that have no event. What it holds does not grow with the log.
#[derive(Debug)]
pub struct LogScan<'c> {
    check: &'c LogCheck,
    keys: Option<&'c HashKeys>,
    horizon: Option<Position>,
    digest: Anchor,
    anchors: usize,
    anchored: Position,
    stream: Option<Stream>,
    /// By key, and several where one is written in several ways, as `1` and `01`.
    ended: BTreeMap<Key, Vec<Stream>>,
    report: LogCheckReport,
}

/// The events of an aggregate, as far as they were read.
#[derive(Debug)]
struct Stream {
    aggregate_type: &'static str,
    aggregate_id: String,
    version: u64,
    position: Position,
    link: Option<Link>,
    is_removed: bool,
    is_broken: bool,
}

impl<'c> LogScan<'c> {
    /// Before the first event. Up to `horizon` no event can still appear; where that is not known,
    /// there is no anchor.
    #[must_use]
    pub fn new(check: &'c LogCheck, hashing: &'c Hashing, horizon: Option<Position>) -> Self {
        let mut report = LogCheckReport::new();
        report.anchor = horizon.map(|_| Anchor::START);
        Self {
            check,
            keys: hashing.keys.as_ref(),
            horizon,
            digest: Anchor::START,
            anchors: 0,
            anchored: Position::START,
            stream: None,
            ended: BTreeMap::new(),
            report,
        }
    }

    /// The next event in the order of the log.
    pub fn event(&mut self, stored: &StoredEvent) {
        self.compare_anchors(Some(stored.position));
        self.report.events += 1;
        let event = match &stored.event {
            Ok(event) => event,
            Err(reason) => {
                let kind = BreakKind::Unreadable(reason.clone());
                return self.broken(Some(stored.position), None, kind);
            }
        };
        self.digest.add(event);
        if self.horizon.is_some_and(|end| stored.position <= end) {
            self.report.anchor = Some(self.digest);
        }
        let mut chained = self.check.chained.iter();
        if chained.any(|own| own.aggregate_type == event.aggregate_type()) {
            return;
        }
        let kind = match self.content(event) {
            Err(kind) => kind,
            Ok(()) if event.content_hash().link().is_some() => BreakKind::Unlisted,
            Ok(()) => return,
        };
        self.broken(Some(stored.position), Some(stream_of(event)), kind);
    }

    /// There are no more events in the order of the log.
    pub fn events_end(&mut self) {
        self.compare_anchors(None);
    }

    /// Compares the anchors that reach up to before an event.
    fn compare_anchors(&mut self, before: Option<Position>) {
        while let Some(anchor) = self.check.anchors.get(self.anchors) {
            if before.is_some_and(|before| anchor.position() >= before) {
                return;
            }
            self.anchors += 1;
            if anchor.covers_the_same(&self.digest) {
                self.anchored = anchor.position();
                continue;
            }
            let after = self.anchored;
            let kind = BreakKind::Anchor { after };
            self.broken(Some(anchor.position()), None, kind);
        }
    }

    /// The next event of a chained aggregate, by id and version.
    pub fn linked(&mut self, aggregate: &ChainedAggregate, stored: &StoredEvent) {
        let event = match &stored.event {
            Ok(event) => event,
            // It was reported in its place in the log, and is missing from its stream.
            Err(_) => return,
        };
        let id = event.aggregate_id_str();
        if self
            .stream
            .as_ref()
            .is_none_or(|stream| stream.aggregate_id != id)
        {
            self.end_stream(aggregate);
            self.report.streams += 1;
            self.stream = Some(Stream {
                aggregate_type: aggregate.aggregate_type,
                aggregate_id: id.to_owned(),
                version: 0,
                position: Position::START,
                link: None,
                is_removed: false,
                is_broken: false,
            });
        }
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let checked = match stream.is_broken {
            true => Ok(()),
            false => self.check_link(&stream, event, stored.is_sourced),
        };
        if let Err(kind) = checked {
            stream.is_broken = true;
            self.broken(Some(stored.position), Some(stream_of(event)), kind);
        }
        let removals = [ChangeMarker::Removed, ChangeMarker::Purged];
        stream.version = event.aggregate_version();
        stream.position = stored.position;
        stream.link = event.content_hash().link();
        stream.is_removed = removals
            .iter()
            .any(|marker| marker.event_type() == event.event_type());
        self.stream = Some(stream);
    }

    fn check_link(
        &self,
        stream: &Stream,
        event: &Envelope<RawPayload>,
        is_sourced: bool,
    ) -> Result<(), BreakKind> {
        let (expected, version) = (stream.version + 1, event.aggregate_version());
        // Retention may have removed what was written before the chain began.
        let may_lack_some = stream.link.is_none() && self.check.unchained_until > Position::START;
        if version < expected || version > expected && !may_lack_some {
            return Err(BreakKind::Version { expected });
        }
        if event.position() <= stream.position {
            return Err(BreakKind::Order);
        }
        self.content(event)?;
        let Some(link) = event.content_hash().link() else {
            let may_lack_it = keys::is_excused(event.position(), self.check.unchained_until);
            return match may_lack_it && stream.link.is_none() {
                true => Ok(()),
                false => Err(BreakKind::Unchained),
            };
        };
        let key = keys::key_of(self.keys, event.content_hash(), event.position());
        let key = key.map_err(BreakKind::Content)?;
        let made = LinkedEvent::of(event, is_sourced).link(stream.link.as_ref(), key);
        match made == link {
            true => Ok(()),
            false => Err(BreakKind::Link),
        }
    }

    fn content(&self, event: &Envelope<RawPayload>) -> Result<(), BreakKind> {
        let verified = keys::verify(
            self.keys,
            event.event_type(),
            event.payload().as_str(),
            event.content_hash(),
            event.position(),
        );
        verified.map_err(|error| match error {
            PayloadError::Altered { reason, .. } => BreakKind::Content(reason),
            other => BreakKind::Content(other.to_string()),
        })
    }

    /// There are no more events of the aggregate type.
    pub fn end_stream(&mut self, aggregate: &ChainedAggregate) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        let key = match aggregate.table.is_sourced() {
            true => Some(Value::Text(stream.aggregate_id.clone())),
            false => aggregate.key(&stream.aggregate_id),
        };
        match key {
            Some(key) => {
                let streams = self.ended.entry(Key::new(vec![key])).or_default();
                streams.push(stream);
            }
            None => self.no_head(stream),
        }
    }

    /// The keys of the streams that have ended since they were asked for last: the heads of these
    /// are to be handed over, then [`heads_end`](Self::heads_end).
    #[must_use]
    pub fn ended(&self) -> Vec<Value> {
        let keys = self.ended.keys();
        keys.flat_map(|key| key.values().iter().cloned()).collect()
    }

    /// The head of a stream that has ended, by its key.
    pub fn head(&mut self, key: Value, version: u64, link: Option<&[u8]>) {
        let streams = self.ended.remove(&Key::new(vec![key]));
        for stream in streams.into_iter().flatten() {
            let fits =
                stream.version == version && stream.link.as_ref().map(<[u8; 32]>::as_slice) == link;
            if !fits && !stream.is_broken {
                let version = Some(version);
                let place = (stream.aggregate_type.to_owned(), stream.aggregate_id);
                let kind = BreakKind::Head { version };
                self.broken(Some(stream.position), Some(place), kind);
            }
        }
    }

    /// The other streams that have ended have no head.
    pub fn heads_end(&mut self) {
        for stream in std::mem::take(&mut self.ended).into_values().flatten() {
            self.no_head(stream);
        }
    }

    fn no_head(&mut self, stream: Stream) {
        if !stream.is_removed && !stream.is_broken {
            let kind = BreakKind::Head { version: None };
            let place = (stream.aggregate_type.to_owned(), stream.aggregate_id);
            self.broken(Some(stream.position), Some(place), kind);
        }
    }

    /// A head without any event.
    pub fn lonely_head(&mut self, aggregate: &ChainedAggregate, aggregate_id: &str, version: u64) {
        if version > 0 {
            let version = Some(version);
            let place = (aggregate.aggregate_type.to_owned(), aggregate_id.to_owned());
            self.broken(None, Some(place), BreakKind::Head { version });
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> LogCheckReport {
        self.report.shorten();
        self.report
    }

    fn broken(
        &mut self,
        position: Option<Position>,
        stream: Option<(String, String)>,
        kind: BreakKind,
    ) {
        self.report.add(Break {
            position,
            stream,
            kind,
        });
    }
}

fn stream_of(event: &Envelope<RawPayload>) -> (String, String) {
    let (kind, id) = (event.aggregate_type(), event.aggregate_id_str());
    (kind.to_owned(), id.to_owned())
}
