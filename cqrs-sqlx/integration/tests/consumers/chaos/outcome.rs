//! What must have come of a scene.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use cqrs_core::{
    Envelope, EventBus, Position, Query, RawPayload, ReadModels, RequestContext, Result, Store,
};
use cqrs_integration::domain::ParcelView;
use cqrs_integration::each::Kind;
use cqrs_integration::workload::{Workload, fold};
use cqrs_sqlx::{DeadLetterStatus, SqlStore};
use uuid::Uuid;

use super::consumers::{Consumers, PUBLISHED, ParcelCopy, Published, VIEWS};

/// Keeps the events that leave the log, once each.
#[derive(Clone, Default)]
pub(super) struct Archive(Arc<Mutex<BTreeMap<Position, Envelope<RawPayload>>>>);

impl EventBus for Archive {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        let mut kept = self.0.lock().unwrap();
        for event in page {
            let before = kept.insert(event.position(), event.clone());
            let same = |before: &Envelope<RawPayload>| before.event_id() == event.event_id();
            assert!(before.as_ref().is_none_or(same), "another event is there");
        }
        Ok(())
    }
}

impl Archive {
    /// What was archived and has left the log.
    async fn removed<K: Kind>(&self, store: &SqlStore<K>) -> Vec<Envelope<RawPayload>> {
        let left = positions(store).await;
        let mut kept = self.0.lock().unwrap().clone();
        kept.retain(|position, _| !left.contains(position));
        kept.into_values().collect()
    }

    /// Checks that every subscription has passed what has left the log.
    pub(super) async fn check<K: Kind>(&self, store: &SqlStore<K>) -> Result<()> {
        let Some(last) = self.removed(store).await.pop() else {
            return Ok(());
        };
        for status in store.subscriptions().await? {
            assert!(
                status.position >= last.position(),
                "the event at {} has left the log: {status:#?}",
                last.position()
            );
        }
        Ok(())
    }
}

async fn positions<K: Kind>(store: &SqlStore<K>) -> BTreeSet<Position> {
    let system = RequestContext::system();
    loop {
        // It fails where its session is killed.
        if let Ok(left) = store.events(&system, Position::START, u32::MAX).await {
            return left.iter().map(Envelope::position).collect();
        }
        tokio::task::yield_now().await;
    }
}

/// Checks the log, the read models and what was published.
pub(super) async fn check<K: Kind>(
    store: &SqlStore<K>,
    workload: &Workload,
    consumers: &Consumers,
    archive: &Archive,
) {
    let log = workload
        .whole_log(store, archive.removed(store).await)
        .await;
    let skipped = skipped(store, VIEWS).await;
    let views = all::<K, ParcelView>(store).await;
    assert_rows(VIEWS, &views, &fold(&log, &skipped));
    let copies = all::<K, ParcelCopy>(store).await;
    let copies: Vec<ParcelView> = copies.into_iter().map(ParcelView::from).collect();
    assert_rows("copies", &copies, &fold(&log, &BTreeSet::new()));
    let not_published = self::skipped(store, PUBLISHED).await;
    check_published(&consumers.bus.published(), &log, &not_published);
}

/// The events of which there is a record that they were skipped.
async fn skipped<K: Kind>(store: &SqlStore<K>, name: &str) -> BTreeSet<Position> {
    let operations = store.operations(&RequestContext::system()).unwrap();
    let letters = operations.dead_letters(name, Position::START, u32::MAX);
    let letters = letters.await.unwrap();
    letters
        .into_iter()
        .map(|letter| {
            assert_eq!(letter.status, DeadLetterStatus::Skipped, "{letter:?}");
            letter.position
        })
        .collect()
}

async fn all<K: Kind, R: cqrs_core::ReadModel>(store: &SqlStore<K>) -> Vec<R> {
    let models = store.read_models(&RequestContext::system());
    models.query(Query::all()).await.unwrap()
}

fn assert_rows(what: &str, found: &[ParcelView], expected: &BTreeMap<String, ParcelView>) {
    let found: BTreeMap<String, &ParcelView> = found
        .iter()
        .map(|view| (view.id.to_string(), view))
        .collect();
    for (id, view) in expected {
        assert_eq!(found.get(id), Some(&view), "{what}: parcel {id}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Everything that is in the log and was not skipped was published at least once, and for the first
/// time in the order of its aggregate.
fn check_published(
    published: &[Published],
    log: &[Envelope<RawPayload>],
    skipped: &BTreeSet<Position>,
) {
    let mut seen: HashSet<Uuid> = HashSet::new();
    let mut versions: HashMap<&str, u64> = HashMap::new();
    for (id, aggregate, version) in published {
        if seen.insert(*id) {
            let last = versions.insert(aggregate, *version);
            assert!(
                last.is_none_or(|last| last < *version),
                "parcel {aggregate}: version {version} was published after {last:?}"
            );
        }
    }
    for event in log {
        let was_published = seen.remove(&event.event_id());
        assert!(
            was_published || skipped.contains(&event.position()),
            "the event at {} was not published",
            event.position()
        );
    }
    assert!(seen.is_empty(), "published and not in the log: {seen:?}");
}
