//! Nothing that is kept holds plain text, neither before nor after.

use std::path::PathBuf;
use std::process::Command;

use cqrs_core::conformance::fixtures::{Member, PersonEntry, PersonList};
use cqrs_core::sealed::{Forgotten, Sealing};
use cqrs_core::{
    FailurePolicy, IdempotencyKey, Parking, ReadModels, RequestContext, Rows, SourcedState,
    StartAt, Store, Subscription, UnitOfWork,
};
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_sqlx::{SqlStore, SqlTransaction, StoreOptions};

use super::domain::{Broken, Household, Welcome};
use super::{FORMER, NAME, forget, north, opened, registered, sealed, subject, with};

on_each!(forgetting_leaves_no_plain_text_in_any_table);

/// Parts of both names, which no id or time holds by chance.
const PLAIN: [&str; 3] = ["Augusta", "Lovelace", "Gordon-Byron"];

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

    forget(&keys, "ada").await;
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

/// What operators keep of the database.
#[tokio::test]
async fn forgetting_leaves_no_plain_text_in_pg_dump() {
    let (fresh, store) = with::<cqrs_sqlx::Postgres>(StoreOptions::default()).await;
    scatter(&store).await;
    forget(&store.subject_keys(&north()), "ada").await;
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
