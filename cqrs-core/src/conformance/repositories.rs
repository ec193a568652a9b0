//! Repositories: finders that a domain declares, for aggregates and for read models.

use super::Harness;
use super::fixtures::{Parcel, ParcelEntry, Status};
use super::support::{Bench, assert_usage, begin, err, north, ok, south};
use crate::error::{Error, Result};
use crate::read_model::{ReadModelRepository, ReadModels};
use crate::repository;
use crate::repository::Repository;
use crate::specification::{Page, PageRequest, Query, Specification};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

#[repository]
trait Parcels: Repository<Parcel> {
    #[find(label == label, one)]
    async fn find_labelled(&mut self, label: &str) -> Result<Option<Parcel>>;

    #[find(label == label, one)]
    async fn get_labelled(&mut self, label: &str) -> Result<Parcel>;

    #[find(label == label, one, lock)]
    async fn get_locked(&mut self, label: &str) -> Result<Parcel>;

    #[find(status == Status::Waiting, order_by(label.asc()), lock, skip_locked)]
    async fn take_waiting(&mut self) -> Result<Option<Parcel>>;

    #[find(label >= from, order_by(label.asc()), lock)]
    async fn find_locked(&mut self, from: &str, limit: u32) -> Result<Vec<Parcel>>;

    #[find(label >= from)]
    async fn exists_from(&mut self, from: &str) -> Result<bool>;

    #[find(label >= from)]
    async fn count_from(&mut self, from: &str) -> Result<u64>;

    #[find(specification && shelf >= shelf, order_by(label.desc()))]
    async fn find_by(
        &mut self,
        specification: Specification<Parcel>,
        shelf: i16,
        limit: u32,
    ) -> Result<Vec<Parcel>>;

    #[find(shelf >= shelf && specification, order_by(label.desc()))]
    async fn page_by(
        &mut self,
        shelf: i16,
        specification: Specification<Parcel>,
        page: PageRequest,
    ) -> Result<Page<Parcel>>;

    #[find(specification || shelf >= shelf)]
    async fn count_by(&mut self, specification: Specification<Parcel>, shelf: i16) -> Result<u64>;
}

#[repository]
trait ParcelEntries: ReadModelRepository<ParcelEntry> {
    #[find(label >= from, order_by(label.desc()))]
    async fn find_from(&self, from: &str, limit: u32) -> Result<Vec<ParcelEntry>>;

    #[find(label >= from, order_by(label.asc()))]
    async fn first_from(&self, from: &str) -> Result<Option<ParcelEntry>>;

    #[find(label == label, one)]
    async fn find_labelled(&self, label: &str) -> Result<Option<ParcelEntry>>;

    #[find(label == label, one)]
    async fn get_labelled(&self, label: &str) -> Result<ParcelEntry>;

    #[find(specification && moves == 0, order_by(label.asc()))]
    async fn page_by(
        &self,
        specification: Specification<ParcelEntry>,
        page: PageRequest,
    ) -> Result<Page<ParcelEntry>>;

    #[find(label >= from)]
    async fn count_from(&self, from: &str) -> Result<u64>;

    #[find(label >= from)]
    async fn exists_from(&self, from: &str) -> Result<bool>;

    async fn labels_from(&self, from: &str) -> Result<Vec<String>> {
        let entries = self.find_from(from, 100).await?;
        Ok(entries.into_iter().map(|entry| entry.label).collect())
    }
}

/// Saves parcels with these labels, on shelves from 0 on, and more that must never be found.
async fn parcels<H: Harness>(bench: &Bench<'_, H>, labels: &[&str]) {
    let mut uow = bench.unit_of_work(&north());
    for (shelf, label) in (0..).zip(labels) {
        let mut parcel = Parcel::register(label);
        parcel.shelf = shelf;
        ok(uow.save(parcel));
    }
    let _ = ok(uow.commit().await);
    for label in ["a", "z"] {
        bench.parcel(&south(), label).await;
        let gone = bench.parcel(&north(), label).await;
        bench.remove(&north(), gone).await;
    }
}

fn labels(parcels: &[Parcel]) -> String {
    parcels.iter().map(|parcel| parcel.label.as_str()).collect()
}

#[track_caller]
fn assert_not_unique(error: &Error, entity: &str) {
    match error {
        Error::NotUnique {
            entity: found,
            condition,
        } => {
            assert_eq!(*found, entity);
            assert!(condition.contains("label"), "{condition}");
        }
        other => panic!("expected that there are several, got {other:?}"),
    }
    assert!(!error.is_retryable());
}

#[track_caller]
fn assert_none(error: &Error, entity: &str) {
    match error {
        Error::NotFound { aggregate, id } => {
            assert_eq!(*aggregate, entity);
            assert!(id.contains("label"), "{id}");
        }
        other => panic!("expected that there is none, got {other:?}"),
    }
}

/// Where one row is expected, none is told from one, and a second is an error.
pub async fn one_row_is_expected<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "b", "c"]).await;
    let mut uow = bench.unit_of_work(&north());
    let mut repository = uow.repository::<Parcel>();
    assert_eq!(ok(repository.get_labelled("a").await).label, "a");
    assert!(ok(repository.find_labelled("c").await).is_some());
    assert!(ok(repository.find_labelled("z").await).is_none());
    assert_none(&err(repository.get_labelled("z").await), "parcel");
    assert_not_unique(&err(repository.find_labelled("b").await), "parcel");
    assert_not_unique(&err(repository.get_labelled("b").await), "parcel");
    let label = Parcel::fields().label;
    let least = Query::filter(label.ge("b")).order_by(label.asc()).limit(1);
    assert!(ok(repository.find_one(least).await).is_some());
    let skipping = Query::filter(label.eq("a")).skip_locked();
    assert_usage(&err(repository.find_one(skipping).await));
    // The unit of work goes on.
    assert_eq!(ok(repository.get_labelled("c").await).label, "c");
}

/// Whether there is any, and how many, within the tenant and without what was removed.
pub async fn existence_and_count_are_declared<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c"]).await;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Parcel::register("staged")));
    let mut repository = uow.repository::<Parcel>();
    for (from, count) in [("", 4), ("b", 3), ("d", 1), ("t", 0)] {
        assert_eq!(ok(repository.count_from(from).await), count);
        assert_eq!(ok(repository.exists_from(from).await), count > 0, "{from}");
    }
}

/// A specification is a parameter, joined with conditions of the finder's own.
pub async fn finders_take_a_specification<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d", "e"]).await;
    let f = Parcel::fields();
    let but_c = || f.label.ne("c");
    let mut uow = bench.unit_of_work(&north());
    let mut repository = uow.repository::<Parcel>();
    let found = ok(repository.find_by(but_c(), 1, 2).await);
    assert_eq!(labels(&found), "ed");
    let found = ok(repository.find_by(Specification::all(), 0, 9).await);
    assert_eq!(labels(&found), "edcba");
    assert_eq!(ok(repository.count_by(f.label.eq("a"), 3).await), 3);
    assert_eq!(ok(repository.count_by(Specification::none(), 5).await), 0);
    let (mut seen, mut request) = (String::new(), PageRequest::first(2).with_total());
    loop {
        let page = ok(repository.page_by(1, but_c(), request).await);
        assert_eq!(page.total, Some(3));
        seen.push_str(&labels(&page.items));
        let Some(next) = page.next else { break };
        request = PageRequest::after(next, 2).with_total();
    }
    assert_eq!(seen, "edb");
}

/// What is locked is found as it is without the lock, with what is staged, and can be changed.
pub async fn what_is_locked_can_be_changed<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["b", "c"]).await;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Parcel::register("a")));
    let found = ok(uow.repository::<Parcel>().find_locked("a", 2).await);
    assert_eq!(labels(&found), "ab");
    for mut parcel in found {
        parcel.weigh(5);
        ok(uow.save(parcel));
    }
    let receipt = ok(uow.commit().await);
    assert_eq!(receipt.events().len(), 3);
    // One that locks and writes nothing.
    let mut uow = bench.unit_of_work(&north());
    let parcel = ok(uow.repository::<Parcel>().get_locked("a").await);
    assert_eq!(parcel.root.version(), 2);
    assert_eq!(ok(uow.commit().await).events().len(), 0);
    let mut uow = bench.unit_of_work(&north());
    assert!(ok(uow.repository::<Parcel>().find_locked("d", 2).await).is_empty());
    assert_none(
        &err(uow.repository::<Parcel>().get_locked("d").await),
        "parcel",
    );
    uow.rollback().await;
}

/// A queue is worked off in its order, each element once.
pub async fn a_queue_is_worked_off<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["c", "a", "b"]).await;
    let (context, mut taken) = (north(), Vec::new());
    loop {
        let take = bench.store.execute(&context, async |uow| {
            let Some(mut parcel) = uow.repository::<Parcel>().take_waiting().await? else {
                return Ok(None);
            };
            let label = parcel.label.clone();
            parcel.open();
            uow.save(parcel)?;
            Ok(Some(label))
        });
        let Some(label) = ok(take.await).into_output() else {
            break;
        };
        taken.push(label);
    }
    assert_eq!(taken, ["a", "b", "c"]);
}

/// A lock where it would not last is refused: in what only reads, for read models, for a page.
pub async fn a_lock_that_would_not_last_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a"]).await;
    bench.project().await;
    let mut reading = bench.store.read_only(&north());
    let mut repository = reading.repository::<Parcel>();
    assert_usage(&err(repository.take_waiting().await));
    assert_usage(&err(repository.get_locked("a").await));
    assert_usage(&err(repository.query(Query::all().lock()).await));
    assert_eq!(ok(repository.get_labelled("a").await).label, "a");
    drop(repository);
    reading.rollback().await;

    let models = bench.store.read_models(&north());
    for query in [Query::all().lock(), Query::all().skip_locked()] {
        assert_usage(&err(models.query::<ParcelEntry>(query).await));
    }

    let mut uow = bench.unit_of_work(&north());
    let refused = uow
        .repository::<Parcel>()
        .page(Query::all().lock(), PageRequest::first(1))
        .await;
    assert_usage(&err(refused));
    uow.rollback().await;
}

/// Read models have repositories with the same finders.
pub async fn read_models_have_repositories<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "b", "c"]).await;
    bench.project().await;
    let models = bench.store.read_models(&south());
    assert_eq!(ok(models.labels_from("").await).concat(), "za");
    let models = bench.store.read_models(&north());
    // Removals of the fixtures raise no event, so the list keeps the two.
    assert_eq!(ok(models.labels_from("").await).concat(), "zcbbaa");
    assert_eq!(ok(models.find_from("b", 2).await).len(), 2);
    let first = ok(models.first_from("bb").await);
    assert_eq!(first.map(|entry| entry.label).as_deref(), Some("c"));
    assert!(ok(models.find_labelled("d").await).is_none());
    assert!(ok(models.find_labelled("c").await).is_some());
    assert_eq!(ok(models.get_labelled("z").await).label, "z");
    let table = "conformance_parcel_list";
    assert_none(&err(models.get_labelled("d").await), table);
    assert_not_unique(&err(models.find_labelled("b").await), table);
    assert_not_unique(&err(models.get_labelled("a").await), table);
    for (from, count) in [("", 6), ("b", 4), ("zz", 0)] {
        assert_eq!(ok(models.count_from(from).await), count);
        assert_eq!(ok(models.exists_from(from).await), count > 0, "{from}");
    }
    let label = ParcelEntry::fields().label;
    let first = PageRequest::first(3).with_total();
    let page = ok(models.page_by(label.ne("b"), first).await);
    assert_eq!((page.items.len(), page.total), (3, Some(4)));
    let next = PageRequest::after(page.next.unwrap_or_else(|| panic!("there is more")), 3);
    let page = ok(models.page_by(label.ne("b"), next).await);
    assert_eq!(page.items[0].label, "z");
    assert!(page.next.is_none());
}
