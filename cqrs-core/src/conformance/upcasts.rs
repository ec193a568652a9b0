//! Events of older releases are read by the code of now.

use std::sync::{Arc, Mutex, PoisonError};

use super::Harness;
use super::fixtures::{ForgetfulLetter, Letter, LetterEvent, OldLetter, OldLetterEvent};
use super::support::{Bench, begin, err, north, ok};
use crate::bus::{EventBus, Relay};
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result};
use crate::integrity::ContentHash;
use crate::payload::PayloadError;
use crate::projection::Projection;
use crate::repository::EventHistory;
use crate::sourced::{Sourced, SourcedState};
use crate::subscription::Subscription;
use crate::unit_of_work::UnitOfWork;

/// A letter that the first release has written, stamped with two euros and sent.
async fn old_letter<H: Harness>(bench: &Bench<'_, H>, id: i64) {
    let mut letter = OldLetter::blank(id);
    let to = "ann".to_owned();
    letter.raise(OldLetterEvent::Written { to });
    letter.raise(OldLetterEvent::Stamped { euros: 2 });
    letter.raise(OldLetterEvent::Sent);
    bench.save(&north(), letter).await;
}

fn franked(cents: i64) -> LetterEvent {
    let currency = "EUR".to_owned();
    LetterEvent::Franked { cents, currency }
}

/// An aggregate is folded from events of both releases, and its history is in the words of now.
pub async fn aggregates_read_old_events<H: Harness>(h: &H) {
    let bench = begin(h).await;
    old_letter(&bench, 1).await;
    let mut letter: Letter = bench.load(&north(), 1).await;
    assert_eq!((letter.cents, letter.posted), (200, true));
    letter.raise(franked(50));
    bench.save(&north(), letter).await;
    let letter: Letter = bench.load(&north(), 1).await;
    assert_eq!((letter.cents, letter.root.version()), (250, 4));
    let mut uow = bench.unit_of_work(&north());
    let events = ok(uow.repository::<Letter>().events(1).await);
    let payloads: Vec<_> = events
        .iter()
        .filter_map(|event| event.payload().clone())
        .collect();
    let to = "ann".to_owned();
    assert_eq!(
        payloads,
        [
            LetterEvent::Written { to },
            franked(200),
            LetterEvent::Posted,
            franked(50)
        ]
    );
    // The log has them as they were written.
    let log = bench.log().await;
    let stored = &log[1];
    assert_eq!(stored.event_type(), "letter.stamped");
    assert_eq!(stored.payload().as_str(), r#"{"euros":2}"#);
}

/// Remembers the events that it is given.
#[derive(Clone, Default)]
struct Franks(Arc<Mutex<Vec<LetterEvent>>>);

impl<T: Send> Projection<T> for Franks {
    type Event = LetterEvent;

    fn name(&self) -> &str {
        "conformance_franks"
    }

    /// Under the name of now.
    fn event_types(&self) -> Option<&'static [&'static str]> {
        Some(&["letter.franked"])
    }

    async fn apply(&self, page: &[Envelope<LetterEvent>], _: &mut T) -> Result<()> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(page.iter().map(|event| event.payload().clone()));
        Ok(())
    }
}

/// A projection gets old events lifted, and asks for renamed ones by the name of now.
pub async fn projections_read_old_events<H: Harness>(h: &H) {
    let bench = begin(h).await;
    old_letter(&bench, 1).await;
    let mut new = Letter::blank(2);
    new.raise(franked(70));
    bench.save(&north(), new).await;
    let franks = Franks::default();
    let make = || Subscription::new(franks.clone());
    h.run_subscription(&bench.store, &make).await;
    let seen = franks.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(*seen, [franked(200), franked(70)]);
}

#[derive(Clone, Default)]
struct Bus(Arc<Mutex<Vec<Envelope<RawPayload>>>>);

impl EventBus for Bus {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.extend_from_slice(page);
        Ok(())
    }
}

/// A relay that is told to publishes old events in the words of now; others as they are.
pub async fn relays_lift_old_events<H: Harness>(h: &H) {
    let bench = begin(h).await;
    old_letter(&bench, 1).await;
    bench.counter(3).await;
    let (plain, lifting) = (Bus::default(), Bus::default());
    let make = || {
        let relay = Relay::new("conformance_plain", plain.clone());
        Subscription::new(relay)
    };
    h.run_subscription(&bench.store, &make).await;
    let make = || {
        let relay = Relay::new("conformance_lifting", lifting.clone());
        Subscription::new(relay.upcasting::<LetterEvent>())
    };
    h.run_subscription(&bench.store, &make).await;
    let log = bench.log().await;
    let published = plain
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    assert_eq!(published, log);
    let published = lifting
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let labels: Vec<_> = published
        .iter()
        .map(|event| {
            (
                event.event_type(),
                event.schema_version(),
                event.payload().as_str(),
            )
        })
        .collect();
    assert_eq!(
        labels,
        [
            ("letter.written", 1, r#"{"to":"ann"}"#),
            ("letter.franked", 3, r#"{"cents":200,"currency":"EUR"}"#),
            ("letter.posted", 1, "{}"),
            ("counter.added", 1, r#"{"by":1}"#),
        ]
    );
    for (stored, published) in log.iter().zip(&published) {
        assert_eq!(stored.event_id(), published.event_id());
        assert_eq!(stored.position(), published.position());
        let hash = ContentHash::of(published.payload().as_str());
        assert_eq!(published.content_hash(), hash);
    }
}

/// Where nothing lifts an old event, and where it is younger than the code, the error names it.
pub async fn what_nothing_lifts_is_named<H: Harness>(h: &H) {
    let bench = begin(h).await;
    old_letter(&bench, 1).await;
    let mut uow = bench.unit_of_work(&north());
    let error = err(uow.get::<ForgetfulLetter>(1).await.map(drop));
    let Error::Undecodable { reason, .. } = &error else {
        panic!("expected that it cannot be read, got {error:?}");
    };
    assert!(
        matches!(reason, PayloadError::NoUpcaster { event_type, from: 1, expected: 2 }
            if event_type == "letter.written"),
        "{reason:?}"
    );
    let mut new = Letter::blank(2);
    new.raise(franked(1));
    bench.save(&north(), new).await;
    let mut uow = bench.unit_of_work(&north());
    let error = err(uow.get::<OldLetter>(2).await.map(drop));
    assert!(
        matches!(
            &error,
            Error::Undecodable {
                reason: PayloadError::UnknownEventType { .. },
                ..
            }
        ),
        "{error:?}"
    );
}
