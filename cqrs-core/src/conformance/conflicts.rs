//! No lost update, and all or nothing.

use super::Harness;
use super::fixtures::{Counter, Locker, Parcel};
use super::support::{
    Bench, assert_already_exists, assert_conflict, assert_not_found, assert_usage, begin, err,
    north, ok, system,
};
use crate::error::Error;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// A save on an old version is a conflict that names both versions, and changes nothing.
pub async fn a_stale_save_is_a_conflict<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut fresh = bench.parcel(&north(), "contended").await;
    let mut stale = fresh.clone();
    let id = fresh.id;
    fresh.relabel("won");
    fresh.weigh(1);
    bench.save(&north(), fresh).await;
    stale.relabel("lost");
    let error = err(bench.try_save(&north(), stale).await);
    assert_conflict::<Parcel>(&error, &id, 1, 3);

    let loaded: Parcel = bench.load(&north(), id).await;
    assert_eq!((loaded.label.as_str(), loaded.root.version()), ("won", 3));
    assert_eq!(bench.log().await.len(), 3);
}

/// A save on an old version that raised no event is as much a conflict.
pub async fn a_stale_save_without_an_event_is_a_conflict<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut stale = bench.counter(7).await;
    let mut fresh = stale.clone();
    fresh.add(1);
    bench.save(&system(), fresh).await;
    stale.note = Some("lost".to_owned());
    let error = err(bench.try_save(&system(), stale).await);
    assert_conflict::<Counter>(&error, &7, 1, 2);
    assert_eq!(bench.load::<Counter>(&system(), 7).await.note, None);
    assert_eq!(bench.log().await.len(), 2);
}

/// A save on an old version is a conflict also where the aggregate was not changed: what was
/// decided, was decided on an old state.
pub async fn a_stale_unchanged_save_is_a_conflict<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let stale = bench.parcel(&north(), "contended").await;
    let mut fresh = stale.clone();
    fresh.relabel("other");
    bench.save(&north(), fresh).await;
    let id = stale.id;
    let error = err(bench.try_save(&north(), stale.clone()).await);
    assert_conflict::<Parcel>(&error, &id, 1, 2);

    // Also where the values are back to what they were.
    let mut back: Parcel = bench.load(&north(), id).await;
    back.relabel("contended");
    bench.save(&north(), back).await;
    let error = err(bench.try_save(&north(), stale).await);
    assert_conflict::<Parcel>(&error, &id, 1, 3);
    assert_eq!(bench.log().await.len(), 3);
}

/// A removal on an old version is a conflict, with soft delete and without.
pub async fn a_stale_removal_is_a_conflict<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let stale = bench.parcel(&north(), "contended").await;
    let id = stale.id;
    let mut fresh = stale.clone();
    fresh.relabel("kept");
    bench.save(&north(), fresh).await;
    let error = err(bench.try_remove(&north(), stale).await);
    assert_conflict::<Parcel>(&error, &id, 1, 2);
    assert_eq!(bench.load::<Parcel>(&north(), id).await.label, "kept");

    let stale = bench.counter(1).await;
    let mut fresh = stale.clone();
    fresh.add(1);
    bench.save(&system(), fresh).await;
    let error = err(bench.try_remove(&system(), stale).await);
    assert_conflict::<Counter>(&error, &1, 1, 2);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 2);
    assert_eq!(bench.log().await.len(), 4);
}

/// A save that is stale because the unit of work has written the newer version itself is no
/// conflict: it would come again with every retry. It does not count what is unchanged, nor what
/// others have written.
pub async fn a_stale_save_of_its_own_is_wrong_use<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut first = bench.counter(1).await;
    let mut second = first.clone();
    let unchanged = bench.counter(2).await;
    let mut changed = unchanged.clone();
    first.add(1);
    second.add(2);
    changed.add(1);
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(first.clone()));
    ok(uow.save(unchanged));
    let _: Counter = ok(uow.get(1).await);
    ok(uow.save(changed));
    let _: Counter = ok(uow.get(2).await);
    ok(uow.save(second.clone()));
    let error = err(uow.get::<Counter>(1).await);
    assert_usage(&error);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("saved before"), "{error}");
    let error = err(uow.commit().await);
    assert_usage(&error);
    assert!(!error.is_retryable());
    assert_eq!(bench.log().await.len(), 2);

    // In the commit, too.
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(first.clone()));
    let _: Counter = ok(uow.get(1).await);
    ok(uow.save(second.clone()));
    let error = err(uow.commit().await);
    assert_usage(&error);
    assert!(!error.is_retryable());

    bench.save(&system(), first).await;
    let error = err(bench.try_save(&system(), second).await);
    assert_conflict::<Counter>(&error, &1, 1, 2);
}

/// A second copy of an aggregate is refused when it is staged; the first stays staged.
pub async fn an_aggregate_is_staged_once<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut one = bench.parcel(&north(), "twice").await;
    let mut other = one.clone();
    let id = one.id;
    one.relabel("one");
    other.relabel("other");
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(one));
    for error in [err(uow.save(other.clone())), err(uow.remove(other))] {
        assert_usage(&error);
        let text = error.to_string();
        assert!(
            text.contains("parcel") && text.contains(&id.to_string()),
            "{text}"
        );
    }
    ok(uow.commit().await);
    let loaded: Parcel = bench.load(&north(), id).await;
    assert_eq!((loaded.label.as_str(), loaded.root.version()), ("one", 2));
    assert_eq!(bench.log().await.len(), 2);
}

/// Of two units of work that loaded the same version, the later commit is a conflict.
pub async fn no_update_is_lost<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counter = bench.counter(1).await;
    assert_eq!(counter.value, 1);
    let mut first = bench.unit_of_work(&system());
    let mut second = bench.unit_of_work(&system());
    let mut in_first: Counter = ok(first.get(1).await);
    let mut in_second: Counter = ok(second.get(1).await);
    in_first.add(10);
    in_second.add(100);
    ok(first.save(in_first));
    ok(second.save(in_second));
    let receipt = ok(second.commit().await);
    assert_eq!(receipt.events().len(), 1);
    assert_conflict::<Counter>(&err(first.commit().await), &1, 1, 2);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 101);
    assert_eq!(bench.log().await.len(), 2);
}

/// Writers that read, add and commit in turns, and start over on conflict, lose nothing.
pub async fn many_writers_lose_no_update<H: Harness>(h: &H) {
    const WRITERS: usize = 5;
    let bench = begin(h).await;
    bench.counter(1).await;
    let mut conflicts = 0;
    let mut waiting = vec![1_i64; WRITERS];
    while !waiting.is_empty() {
        let mut units = Vec::new();
        for by in &waiting {
            let mut uow = bench.unit_of_work(&system());
            let mut counter: Counter = ok(uow.get(1).await);
            counter.add(*by);
            ok(uow.save(counter));
            units.push((uow, *by));
        }
        waiting.clear();
        for (uow, by) in units {
            match uow.commit().await {
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
                    conflicts += 1;
                    waiting.push(by);
                }
            }
        }
    }
    // One of each round wins: 4 + 3 + 2 + 1 lose.
    assert_eq!(conflicts, 10);
    let counter: Counter = bench.load(&system(), 1).await;
    assert_eq!((counter.value, counter.root.version()), (6, 6));
}

/// What a commit of many does where one of them is stale: everything is as before.
struct Scene {
    stale: Counter,
    parcel: Parcel,
    locker: Locker,
}

async fn scene<H: Harness>(bench: &Bench<'_, H>) -> Scene {
    let parcel = bench.parcel(&north(), "untouched").await;
    let locker = bench.locker(&north(), "untouched").await;
    let stale = bench.counter(1).await;
    let mut fresh = stale.clone();
    fresh.add(1);
    bench.save(&system(), fresh).await;
    Scene {
        stale,
        parcel,
        locker,
    }
}

async fn assert_untouched<H: Harness>(bench: &Bench<'_, H>, parcel: &Parcel) {
    let loaded: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!(loaded.label, "untouched");
    assert_eq!(loaded.root.version(), 1);
    let locker: Locker = bench.load(&north(), "untouched".to_owned()).await;
    assert_eq!(locker.holder.as_deref(), Some("ann"));
    assert_eq!(locker.root.version(), 1);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 2);
    assert!(bench.find::<Counter>(&system(), 2).await.is_none());
    assert_eq!(bench.log().await.len(), 4);
}

/// A commit of a change, a creation and a removal with a stale save at its end writes none of
/// them, and no event.
pub async fn all_or_nothing_with_the_stale_one_last<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let Scene {
        mut stale,
        parcel,
        locker,
    } = scene(&bench).await;
    let mut changed = parcel.clone();
    changed.relabel("touched");
    stale.add(50);
    let mut new = Counter::new(2);
    new.add(1);
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(changed));
    ok(uow.save(new));
    ok(uow.remove(locker));
    ok(uow.save(stale));
    assert_conflict::<Counter>(&err(uow.commit().await), &1, 1, 2);
    assert_untouched(&bench, &parcel).await;
}

/// The same with the stale save first.
pub async fn all_or_nothing_with_the_stale_one_first<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let Scene {
        mut stale,
        parcel,
        mut locker,
    } = scene(&bench).await;
    let mut changed = parcel.clone();
    changed.note = Some("touched".to_owned());
    stale.add(50);
    locker.free();
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(stale));
    ok(uow.save(Counter::new(2)));
    ok(uow.save(changed));
    ok(uow.save(locker));
    assert_conflict::<Counter>(&err(uow.commit().await), &1, 1, 2);
    assert_untouched(&bench, &parcel).await;
}

/// The same with a new aggregate whose id is taken.
pub async fn all_or_nothing_with_a_taken_id<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let Scene { parcel, locker, .. } = scene(&bench).await;
    let mut changed = parcel.clone();
    changed.relabel("touched");
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(changed));
    ok(uow.save(Counter::new(2)));
    ok(uow.save(Counter::new(1)));
    ok(uow.remove(locker));
    assert_already_exists::<Counter>(&err(uow.commit().await), &1);
    assert_untouched(&bench, &parcel).await;
}

/// The same with one that was removed meanwhile, through [`execute`](Store::execute), which does
/// not try that again.
pub async fn all_or_nothing_with_a_removal<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let Scene { parcel, .. } = scene(&bench).await;
    let gone = bench.counter(3).await;
    bench.remove(&system(), gone.clone()).await;
    let before = bench.log().await.len();
    let error = err(bench
        .store
        .execute(&north(), async |uow| {
            let mut changed = parcel.clone();
            changed.relabel("touched");
            uow.save(changed)?;
            uow.save(Counter::new(2))?;
            let mut gone = gone.clone();
            gone.add(1);
            uow.save(gone)
        })
        .await);
    assert_not_found::<Counter>(&error, &3);
    let loaded: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!(
        (loaded.label.as_str(), loaded.root.version()),
        ("untouched", 1)
    );
    assert!(bench.find::<Counter>(&system(), 2).await.is_none());
    assert_eq!(bench.log().await.len(), before);
}
