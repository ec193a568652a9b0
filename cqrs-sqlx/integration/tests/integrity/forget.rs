//! Of who is forgotten no plain text is left, in anything that the framework keeps.

mod domain;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::conformance::fixtures::{Member, Person, PersonEntry, PersonList};
use cqrs_core::integrity::LogCheck;
use cqrs_core::memory::InMemoryKeyStore;
use cqrs_core::sealed::{
    Forgotten, KeyStore, MasterKey, MasterKeys, Sealed, SealedError, Sealing, Subject, SubjectKeys,
};
use cqrs_core::{
    Entity, Error, FailurePolicy, IdempotencyKey, Parking, Position, ReadModels, RequestContext,
    Rows, SourcedState, StartAt, Store, StoreErrorKind, Subscription, UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::each::{Fresh, Kind, kind, on_each};
use cqrs_integration::stores;
use cqrs_integration::wire::{Counts, WireProxy};
use cqrs_sqlx::{SqlStore, SqlTransaction, StoreOptions};
use tokio::sync::Barrier;

use self::domain::{Broken, Greeter, Household, Welcome};

on_each!(
    forgetting_leaves_no_plain_text_in_any_table,
    forgetting_keeps_chains_intact,
    forgetting_beats_every_commit_that_seals,
    forgetting_while_a_projector_runs,
    forgetting_needs_no_master_key,
    forgetting_in_a_key_service,
    forgetting_never_hangs_behind_the_own_unit_of_work,
);

const NAME: &str = "Augusta Ada Lovelace";
const FORMER: &str = "Augusta Ada Byron";
/// Parts of both, which no id or time holds by chance.
const PLAIN: [&str; 3] = ["Augusta", "Lovelace", "Byron"];

fn north() -> RequestContext {
    stores::tenant("north").with_actor("ann")
}

fn subject(id: &str) -> Subject {
    Subject::new(id).unwrap()
}

async fn with<K: Kind>(options: StoreOptions) -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with(options).await;
    let tables = [Person::table(), PersonEntry::table(), Household::table()];
    store.create_tables(&tables).await.unwrap();
    store.verify(&tables).await.unwrap();
    (fresh, store)
}

async fn sealed(keys: &SubjectKeys, id: &str, name: &str) -> cqrs_core::Result<Sealed<String>> {
    Ok(keys.key(&subject(id)).await?.seal(&name.to_owned())?)
}

async fn opened(
    keys: &SubjectKeys,
    value: &Sealed<String>,
) -> cqrs_core::Result<Result<String, Forgotten>> {
    Ok(keys.ring([value.subject()]).await?.open(value)?)
}

async fn registered<K: Kind>(store: &SqlStore<K>, id: &str) -> cqrs_core::Result<Sealed<String>> {
    let key = store.subject_keys(&north()).key(&subject(id)).await?;
    let name = key.seal(&FORMER.to_owned())?;
    let person = Person::register(id, name, key.seal(&1815)?);
    let mut uow = store.unit_of_work(&north());
    uow.save(person)?;
    uow.commit().await?;
    let mut uow = store.unit_of_work(&north());
    let mut person: Person = uow.get(id.to_owned()).await?;
    let name = key.seal(&NAME.to_owned())?;
    person.rename(name.clone());
    uow.save(person)?;
    uow.commit().await?;
    Ok(name)
}

/// All tables, each with its rows as texts.
async fn dump<K: Kind>(fresh: &Fresh<K>) -> Vec<(String, Vec<String>)> {
    let tables = K::either(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1",
    );
    let mut dump = Vec::new();
    for table in K::texts(&fresh.url, tables.to_owned()).await {
        let rows = fresh.dump(&table).await;
        dump.push((table, rows));
    }
    dump
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The tables that hold something of these, also in columns of bytes.
fn tables_with<'d>(dump: &'d [(String, Vec<String>)], texts: &[&str]) -> Vec<&'d str> {
    let holds = |row: &String| {
        let lower = row.to_lowercase();
        let mut texts = texts.iter();
        texts.any(|text| row.contains(text) || lower.contains(&hex(text)))
    };
    let found = dump.iter().filter(|(_, rows)| rows.iter().any(holds));
    found.map(|(table, _)| table.as_str()).collect()
}

/// Puts the name into everything that keeps anything.
async fn scatter<K: Kind>(store: &SqlStore<K>) {
    let keys = store.subject_keys(&north());
    registered(store, "ada").await.unwrap();
    let mut member = Member::blank("ada".to_owned());
    let mut household = Household::new(1);
    for name in [FORMER, NAME] {
        member.name(sealed(&keys, "ada", name).await.unwrap());
        household.join(sealed(&keys, "ada", name).await.unwrap());
    }
    let once = IdempotencyKey::new("once").unwrap();
    let name = member.names[0].clone();
    let context = north();
    let receipt = store.execute_once(&context, &once, async |uow| {
        uow.save(member.clone())?;
        uow.save(household.clone())?;
        Ok(name.clone())
    });
    let receipt = receipt.await.unwrap();
    assert_eq!(receipt.output(), &name);
    store.snapshots_written().await;

    let parking = FailurePolicy::Park(Parking::at_most(100));
    let broken = Subscription::named("broken")
        .relay(Broken)
        .on_failure(parking);
    let projector = store.projector().process(Welcome).subscribe(broken);
    let projector = projector.subscribe(list()).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.snapshot(&list()).await.unwrap();
}

fn list<K: Kind>() -> Subscription<SqlTransaction<K>> {
    Subscription::new(Rows(PersonList))
}

async fn forgetting_leaves_no_plain_text_in_any_table<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default().verify_hashes()).await;
    scatter(&store).await;
    let keys = store.subject_keys(&north());
    let row = async || {
        let rows = store.read_models(&north());
        let found = rows.find::<PersonEntry>("ada".to_owned()).await.unwrap();
        found.unwrap()
    };
    let before = row().await;
    assert_eq!(
        opened(&keys, &before.name).await.unwrap(),
        Ok(NAME.to_owned())
    );

    let full = dump(&fresh).await;
    let holding = tables_with(&full, &["sealed:1:"]);
    for table in [
        "cqrs_dead_letter",
        "cqrs_event",
        "cqrs_history",
        "cqrs_process",
        "cqrs_process_task",
        "cqrs_receipt",
        "cqrs_snapshot",
        "conformance_person",
        "conformance_person_list",
        "household_resident",
    ] {
        assert!(holding.contains(&table), "{table} is in {holding:?}");
    }
    assert!(
        holding.iter().any(|table| table.starts_with("cqrs_copy_")),
        "{holding:?}"
    );
    assert_eq!(tables_with(&full, &PLAIN), Vec::<&str>::new());
    let secret = K::either(
        "SELECT encode(secret, 'hex') FROM cqrs_subject_key",
        "SELECT lower(hex(secret)) FROM cqrs_subject_key",
    );
    let secrets = K::texts(&fresh.url, secret.to_owned()).await;
    assert_eq!(secrets.len(), 1);
    let shown = |dump: &[(String, Vec<String>)]| {
        let mut rows = dump.iter().flat_map(|(_, rows)| rows);
        rows.any(|row| row.to_lowercase().contains(&secrets[0]))
    };
    assert!(shown(&full));

    assert!(keys.forget(&subject("ada")).await.unwrap());
    let after = dump(&fresh).await;
    assert_eq!(tables_with(&after, &PLAIN), Vec::<&str>::new());
    assert!(!shown(&after));
    // Nothing else has changed.
    let without_keys = |dump: Vec<(String, Vec<String>)>| -> Vec<_> {
        let tables = dump.into_iter();
        tables
            .filter(|(table, _)| table != "cqrs_subject_key")
            .collect()
    };
    assert_eq!(without_keys(full), without_keys(after));
    let by = "SELECT count(*) FROM cqrs_subject_key WHERE scope = 'north' AND subject = 'ada' \
              AND secret IS NULL AND forgotten_at IS NOT NULL AND forgotten_by = 'ann'";
    assert_eq!(fresh.number(by).await, 1);

    // What is read, and folded once more, is as before, and forgotten.
    let forgotten = Err(Forgotten::of(subject("ada")));
    assert_eq!(row().await, before);
    assert_eq!(opened(&keys, &before.name).await.unwrap(), forgotten);
    let folded = store.live(&north()).rows(&PersonList).await.unwrap();
    assert_eq!(folded, std::slice::from_ref(&before));
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.reset(&list(), StartAt::Beginning).await.unwrap();
    store
        .projector()
        .subscribe(list())
        .run_until_idle()
        .await
        .unwrap();
    assert_eq!(row().await, before);
    let mut uow = store.unit_of_work(&north());
    let member: Member = uow.get("ada".to_owned()).await.unwrap();
    let household: Household = uow.get(1).await.unwrap();
    for name in [&member.names[1], &household.residents[0].name] {
        assert_eq!(opened(&keys, name).await.unwrap(), forgotten);
    }
    assert_not_in_files(&fresh, &PLAIN);
}

/// Where the database is a file, there is nothing in it either.
fn assert_not_in_files<K: Kind>(fresh: &Fresh<K>, texts: &[&str]) {
    let path = K::either(None, fresh.url.strip_prefix("sqlite://"));
    let Some(path) = path.and_then(|path| path.split('?').next()) else {
        return;
    };
    let file = std::fs::read(path).unwrap();
    let log = std::fs::read(format!("{path}-wal")).unwrap_or_default();
    let bytes = [file, log].concat();
    let holds = |text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(holds("sealed:1:"));
    for text in texts {
        assert!(!holds(text), "{text} is in {path}");
    }
}

async fn forgetting_keeps_chains_intact<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default().verify_hashes()).await;
    let keys = store.subject_keys(&north());
    for id in 1..=3 {
        let mut household = Household::new(id);
        for subject in ["ada", "eve"] {
            household.join(sealed(&keys, subject, NAME).await.unwrap());
        }
        let mut uow = store.unit_of_work(&north());
        uow.save(household).unwrap();
        uow.commit().await.unwrap();
    }
    let check = async |check: LogCheck| {
        let check = check.chained::<Household>();
        let system = RequestContext::system();
        store.check_log(&system, &check).await.unwrap()
    };
    let before = check(LogCheck::new()).await;
    assert!(before.is_intact(), "{before:?}");
    keys.forget(&subject("ada")).await.unwrap();
    let after = check(LogCheck::new().anchored(before.anchor())).await;
    assert!(after.is_intact(), "{after:?}");
    assert_eq!((after.events(), after.streams()), (6, 3));
    // Cipher text is covered.
    let moved = K::either(
        "UPDATE cqrs_event SET payload = replace(payload::text, ':ada', ':eve')::jsonb
         WHERE position = 1",
        "UPDATE cqrs_event SET payload = replace(payload, ':ada', ':eve') WHERE position = 1",
    );
    fresh.run(moved).await;
    let report = check(LogCheck::new()).await;
    assert_eq!(report.first().unwrap().position, Some(Position(1)));
}

/// Writers seal and commit for one subject while it is forgotten through another replica. Each goes
/// on until it is told so.
async fn forgetting_beats_every_commit_that_seals<K: Kind>() {
    const WRITERS: usize = 3;
    let (fresh, first) = with::<K>(StoreOptions::default()).await;
    let second = fresh.open(StoreOptions::default()).await;
    let mut in_all = 0;
    for round in 0..50 {
        let who = format!("subject {round}");
        let barrier = Arc::new(Barrier::new(WRITERS + 1));
        let writers = (0..WRITERS).map(|writer| {
            let store = [&first, &second][writer % 2].clone();
            let (who, barrier) = (who.clone(), Arc::clone(&barrier));
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
                    written += 1;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        barrier.wait().await;
        let keys = second.subject_keys(&north());
        assert!(keys.forget(&subject(&who)).await.unwrap());
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
        in_all += written;
    }
    assert!(in_all > 0, "nobody was faster, ever");
    let kept = "SELECT count(*) FROM cqrs_subject_key WHERE secret IS NOT NULL";
    assert_eq!(fresh.number(kept).await, 0);
    let rows = "SELECT count(*) FROM cqrs_subject_key";
    assert_eq!(fresh.number(rows).await, 50);
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
        assert!(keys.forget(&subject(&id)).await.unwrap());
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

async fn forgetting_needs_no_master_key<K: Kind>() {
    let master = |id, secret| MasterKeys::new(MasterKey::new(id, [secret; 32]));
    let options = |keys| StoreOptions::default().master_keys(keys);
    let (fresh, store) = with::<K>(options(master(1, 1))).await;
    let keys = store.subject_keys(&north());
    let name = registered(&store, "ada").await.unwrap();
    assert_eq!(opened(&keys, &name).await.unwrap(), Ok(NAME.to_owned()));

    let read = async |options| {
        let store = fresh.open(options).await;
        opened(&store.subject_keys(&north()), &name).await
    };
    let rotated = master(2, 2).and(MasterKey::new(1, [1; 32]));
    assert_eq!(read(options(rotated)).await.unwrap(), Ok(NAME.to_owned()));
    for (options, expected) in [
        (
            StoreOptions::default(),
            SealedError::NoMasterKey {
                subject: subject("ada"),
                id: 1,
            },
        ),
        (
            options(master(2, 2)),
            SealedError::NoMasterKey {
                subject: subject("ada"),
                id: 1,
            },
        ),
        (options(master(1, 2)), SealedError::Key(subject("ada"))),
    ] {
        let store = fresh.open(options.clone()).await;
        let refused = store.subject_keys(&north()).key(&subject("ada")).await;
        for error in [read(options).await.unwrap_err(), refused.unwrap_err()] {
            assert!(
                matches!(&error, Error::Sealed(found) if *found == expected),
                "{error:?}"
            );
            assert!(!error.is_retryable());
        }
    }
    // The row of another subject is no key for this one.
    let _ = sealed(&keys, "eve", NAME).await.unwrap();
    let exchanged = "UPDATE cqrs_subject_key SET secret = \
                     (SELECT secret FROM cqrs_subject_key AS e WHERE e.subject = 'eve') \
                     WHERE subject = 'ada'";
    fresh.run(exchanged).await;
    let error = opened(&keys, &name).await.unwrap_err();
    let altered = SealedError::Key(subject("ada"));
    assert!(
        matches!(&error, Error::Sealed(found) if *found == altered),
        "{error:?}"
    );

    let without = fresh.open(StoreOptions::default()).await;
    assert!(
        without
            .subject_keys(&north())
            .forget(&subject("ada"))
            .await
            .unwrap()
    );
    let forgotten = Err(Forgotten::of(subject("ada")));
    assert_eq!(opened(&keys, &name).await.unwrap(), forgotten);
}

async fn forgetting_in_a_key_service<K: Kind>() {
    let service: Arc<dyn KeyStore> = Arc::new(InMemoryKeyStore::new());
    let options = || StoreOptions::default().key_store(Arc::clone(&service));
    let (fresh, store) = with::<K>(options()).await;
    let name = registered(&store, "ada").await.unwrap();
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_subject_key").await,
        0
    );
    let other = fresh.open(options()).await.subject_keys(&north());
    assert_eq!(opened(&other, &name).await.unwrap(), Ok(NAME.to_owned()));
    assert!(
        store
            .subject_keys(&north())
            .forget(&subject("ada"))
            .await
            .unwrap()
    );
    let forgotten = Err(Forgotten::of(subject("ada")));
    assert_eq!(opened(&other, &name).await.unwrap(), forgotten);
    // A store that asks elsewhere knows nothing, and does not take that for forgotten.
    let elsewhere = fresh.open(StoreOptions::default()).await;
    let error = opened(&elsewhere.subject_keys(&north()), &name).await;
    let no_key = SealedError::NoKey(subject("ada"));
    assert!(matches!(error, Err(Error::Sealed(found)) if found == no_key));
}

async fn forgetting_never_hangs_behind_the_own_unit_of_work<K: Kind>() {
    let options = StoreOptions::default()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(50));
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
    assert!(keys.forget(&subject("ada")).await.unwrap());
}

#[tokio::test]
async fn forgetting_and_sealing_cost_few_statements() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    let keys = store.subject_keys(&north());
    let ada = subject("ada");
    let cost = |before: &Counts| {
        let sent = proxy.statements_since(before);
        (proxy.counts().since(before).statements, sent)
    };
    for expected in [2, 1] {
        let before = proxy.counts();
        drop(keys.key(&ada).await.unwrap());
        let (found, sent) = cost(&before);
        assert_eq!(found, expected, "{sent:#?}");
    }
    let many: Vec<_> = (0..500)
        .map(|number| subject(&number.to_string()))
        .collect();
    let before = proxy.counts();
    drop(keys.ring(&many).await.unwrap());
    drop(keys.ring([]).await.unwrap());
    let (found, sent) = cost(&before);
    assert_eq!(found, 1, "{sent:#?}");
    let before = proxy.counts();
    assert!(keys.forget(&ada).await.unwrap());
    let (found, sent) = cost(&before);
    assert_eq!(found, 1, "{sent:#?}");
}

/// What operators keep of the database.
#[tokio::test]
async fn forgetting_leaves_no_plain_text_in_pg_dump() {
    let (fresh, store) = with::<cqrs_sqlx::Postgres>(StoreOptions::default()).await;
    scatter(&store).await;
    assert!(
        store
            .subject_keys(&north())
            .forget(&subject("ada"))
            .await
            .unwrap()
    );
    let programs = std::env::var_os("PG_BIN_DIR").map(PathBuf::from);
    // The driver's own parameters are behind it.
    let (url, _) = fresh.url.split_once('?').unwrap_or((&fresh.url, ""));
    let dumped = Command::new(programs.unwrap_or_default().join("pg_dump"))
        .arg(url)
        .output()
        .expect("pg_dump is installed with the server");
    assert!(
        dumped.status.success(),
        "{}",
        String::from_utf8_lossy(&dumped.stderr)
    );
    let text = String::from_utf8(dumped.stdout).unwrap();
    assert!(text.matches("sealed:1:").count() > 10);
    for plain in PLAIN {
        assert!(
            !text.contains(plain) && !text.contains(&hex(plain)),
            "{plain}"
        );
    }
}
