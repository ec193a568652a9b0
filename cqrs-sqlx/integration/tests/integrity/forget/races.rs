//! Whoever seals, reads or holds a connection while a subject is forgotten.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::conformance::fixtures::{Member, Person};
use cqrs_core::sealed::{Forgotten, MasterKey, MasterKeys, Sealing};
use cqrs_core::{Error, SourcedState, Store, StoreErrorKind, UnitOfWork};
use cqrs_integration::each::{Kind, kind, on_each};
use cqrs_sqlx::StoreOptions;
use tokio::sync::{Barrier, Notify};

use super::domain::Greeter;
use super::{FORMER, NAME, forget, north, opened, registered, sealed, subject, with};

on_each!(
    forgetting_beats_every_commit_that_seals,
    forgetting_beats_whoever_rewraps,
    forgetting_while_a_projector_runs,
    forgetting_never_hangs_behind_the_own_unit_of_work,
);

/// Writers seal and commit for one subject while it is forgotten through another replica: at once,
/// and in every second round when the first of them has committed. Each goes on until it is told so.
async fn forgetting_beats_every_commit_that_seals<K: Kind>() {
    const WRITERS: usize = 3;
    let (fresh, first) = with::<K>(StoreOptions::default()).await;
    let second = fresh.open(StoreOptions::default()).await;
    for round in 0..50 {
        let who = format!("subject {round}");
        let barrier = Arc::new(Barrier::new(WRITERS + 1));
        let committed = Arc::new(Notify::new());
        let writers = (0..WRITERS).map(|writer| {
            let store = [&first, &second][writer % 2].clone();
            let (who, barrier) = (who.clone(), Arc::clone(&barrier));
            let committed = Arc::clone(&committed);
            tokio::spawn(async move {
                let context = north();
                let keys = store.subject_keys(&context);
                barrier.wait().await;
                let mut written = 0;
                loop {
                    let name = match sealed(&keys, &who, NAME).await {
                        Ok(name) => name,
                        Err(error) => {
                            assert!(error.domain::<Forgotten>().is_some(), "{error:?}");
                            return written;
                        }
                    };
                    let mut member = Member::blank(format!("{who} {writer} {written}"));
                    member.name(name);
                    let saved = store.execute(&context, async |uow| uow.save(member.clone()));
                    saved.await.unwrap();
                    committed.notify_one();
                    written += 1;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        barrier.wait().await;
        if round % 2 == 1 {
            let one = tokio::time::timeout(Duration::from_secs(60), committed.notified());
            one.await.expect("a writer commits");
        }
        let keys = second.subject_keys(&north());
        forget(&keys, &who).await;
        let refused = sealed(&first.subject_keys(&north()), &who, NAME).await;
        assert!(refused.unwrap_err().domain::<Forgotten>().is_some());
        let mut written = 0;
        for writer in writers {
            written += writer.await.unwrap();
        }
        let mut found = 0;
        let mut uow = first.unit_of_work(&north());
        for writer in 0..WRITERS {
            for number in 0.. {
                let id = format!("{who} {writer} {number}");
                let member = match uow.get::<Member>(id).await {
                    Ok(member) => member,
                    Err(Error::NotFound { .. }) => break,
                    Err(error) => panic!("{error:?}"),
                };
                let forgotten = Err(Forgotten::of(subject(&who)));
                assert_eq!(opened(&keys, &member.names[0]).await.unwrap(), forgotten);
                found += 1;
            }
        }
        assert_eq!(found, written, "{who}");
    }
    let kept = "SELECT count(*) FROM cqrs_subject_key WHERE secret IS NOT NULL";
    assert_eq!(fresh.number(kept).await, 0);
    let rows = "SELECT count(*) FROM cqrs_subject_key";
    assert_eq!(fresh.number(rows).await, 50);
}

/// Keys are put under another master key while their subjects are forgotten.
async fn forgetting_beats_whoever_rewraps<K: Kind>() {
    const SUBJECTS: u32 = 20;
    let master = |id: u8| MasterKey::new(id.into(), [id; 32]);
    let options = |keys| StoreOptions::default().master_keys(keys);
    let (fresh, store) = with::<K>(options(MasterKeys::new(master(0)))).await;
    let mut stores = vec![store];
    for round in 1..=10 {
        let new = MasterKeys::new(master(round))
            .and(master(round - 1))
            .unwrap();
        stores.push(fresh.open(options(new)).await);
        let [.., old, new] = stores.as_slice() else {
            unreachable!("there are two");
        };
        let who: Vec<_> = (0..SUBJECTS)
            .map(|number| subject(&format!("{round} {number}")))
            .collect();
        for subject in &who {
            drop(old.subject_keys(&north()).key(subject).await.unwrap());
        }
        let barrier = Barrier::new(2);
        let forget = async {
            barrier.wait().await;
            for subject in &who {
                let keys = old.subject_keys(&north());
                assert!(keys.forget(subject).await.unwrap());
            }
        };
        let rewrap = async {
            barrier.wait().await;
            new.rewrap_subject_keys(&north(), |_| {}).await.unwrap()
        };
        let ((), done) = tokio::join!(forget, rewrap);
        assert_eq!(done.unreadable, 0);
        let kept = "SELECT count(*) FROM cqrs_subject_key WHERE secret IS NOT NULL";
        assert_eq!(fresh.number(kept).await, 0);
    }
}

async fn forgetting_while_a_projector_runs<K: Kind>() {
    let (_fresh, store) = with::<K>(StoreOptions::default()).await;
    let keys = store.subject_keys(&north());
    let greeter = Greeter::new(keys.clone());
    let projector = store.projector().projection(greeter.clone()).page_size(3);
    let running = projector
        .poll_interval(Duration::from_millis(2))
        .start()
        .await
        .unwrap();
    for number in 0..10 {
        registered(&store, &format!("before {number}"))
            .await
            .unwrap();
    }
    for number in 0..10 {
        let id = format!("before {number}");
        forget(&keys, &id).await;
        registered(&store, &format!("after {number}"))
            .await
            .unwrap();
    }
    let context = north();
    let receipt = store.execute(&context, async |uow| {
        let mut last: Person = uow.get("after 9".to_owned()).await?;
        last.rename(last.name.clone());
        uow.save(last)
    });
    let receipt = receipt.await.unwrap();
    store.wait_for(&receipt, "greeter").await.unwrap();
    let _ = running.stop(Duration::from_secs(10)).await;

    let told = greeter.told();
    assert_eq!(told.len(), 41);
    for number in 0..10 {
        let of = |id: String| -> Vec<_> {
            let own = told.iter().filter(|(person, _)| *person == id);
            own.map(|(_, told)| told.clone()).collect()
        };
        let known = of(format!("after {number}"));
        assert_eq!(known[..2], [Ok(FORMER.to_owned()), Ok(NAME.to_owned())]);
        let id = format!("before {number}");
        let forgotten = Err(Forgotten::of(subject(&id)));
        let told = of(id);
        let possible = [
            [Ok(FORMER.to_owned()), Ok(NAME.to_owned())],
            [Ok(FORMER.to_owned()), forgotten.clone()],
            [forgotten.clone(), forgotten],
        ];
        assert!(possible.iter().any(|one| *one == told[..]), "{told:?}");
    }
}

async fn forgetting_never_hangs_behind_the_own_unit_of_work<K: Kind>() {
    // Opening has to succeed within it on a busy machine too.
    let options = StoreOptions::default()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(1));
    let (_fresh, store) = with::<K>(options).await;
    let keys = store.subject_keys(&north());
    let mut uow = store.unit_of_work(&north());
    uow.connection().await.unwrap();
    for error in [
        keys.key(&subject("ada")).await.unwrap_err(),
        keys.forget(&subject("ada")).await.unwrap_err(),
    ] {
        assert_eq!(kind(&error), &StoreErrorKind::PoolTimedOut);
    }
    drop(uow);
    forget(&keys, "ada").await;
}
