//! Random conditions over random rows mean the same in memory, in SQLite and in Postgres.
//!
//! `DIFFERENTIAL_CASES` says how many conditions, 2,000 if it does not; `CQRS_SEED` repeats a run
//! that failed.

mod conditions;
mod specimens;

use std::env;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use cqrs_core::mapping::Value;
use cqrs_core::{Entity, Error, Query, Repository, RequestContext, Store, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores::tenant;
use cqrs_sqlx::{PgStore, SqliteStore};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use self::conditions::queries;
use self::specimens::{Specimen, SpecimenEvent, specimens};

/// How many conditions are asked of one set of rows, at most.
const BATCH: usize = 50;

fn row(specimen: &Specimen) -> Vec<Value> {
    let mut row = specimen.framework_row();
    row.extend(specimen.to_row().unwrap());
    row
}

/// What a query finds according to its meaning in memory.
fn expected(specimens: &[Specimen], query: &Query<Specimen>) -> Vec<i64> {
    let mut found: Vec<&Specimen> = specimens
        .iter()
        .filter(|specimen| query.specification().is_satisfied_by(specimen).unwrap())
        .collect();
    found.sort_by(|a, b| query.compare_rows(&row(a), &row(b)));
    let limit = query
        .row_limit()
        .map_or(usize::MAX, |rows| rows.try_into().unwrap());
    found
        .iter()
        .take(limit)
        .map(|specimen| specimen.id)
        .collect()
}

fn failed(what: &str, query: &Query<Specimen>, detail: impl Debug) -> TestCaseError {
    TestCaseError::fail(format!("{what}: {query}\n{detail:#?}"))
}

/// Saves the rows and asks the queries; `ControlFlow::Break` is what is wrong.
async fn ask<S: Store>(
    store: &S,
    name: &str,
    context: &RequestContext,
    specimens: &[Specimen],
    queries: &[Query<Specimen>],
    telling: &AtomicU64,
) -> ControlFlow<TestCaseError> {
    let mut uow = store.unit_of_work(context);
    for specimen in specimens {
        uow.save(specimen.clone()).unwrap();
    }
    uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(context);
    let mut repository = uow.repository::<Specimen>();
    let kept = repository.query(Query::all()).await.unwrap();
    for (kept, saved) in kept.iter().zip(specimens) {
        let parts = (kept.child_rows().unwrap(), saved.child_rows().unwrap());
        if parts.0 != parts.1 {
            return ControlFlow::Break(failed(name, &Query::all(), parts));
        }
    }
    for query in queries {
        let found = repository.query(query.clone()).await;
        let found = match (query.check(), found) {
            (Ok(()), Ok(found)) => found,
            (Err(_), Err(Error::Mapping(_))) => continue,
            (check, found) => {
                return ControlFlow::Break(failed(name, query, (check, found)));
            }
        };
        let found: Vec<i64> = found.iter().map(|specimen| specimen.id).collect();
        let expected = expected(specimens, query);
        if found != expected || expected != self::expected(&kept, query) {
            let detail = (&found, &expected, specimens, &kept);
            return ControlFlow::Break(failed(name, query, detail));
        }
        if !(found.is_empty() || found.len() == specimens.len()) {
            telling.fetch_add(1, Ordering::Relaxed);
        }
    }
    ControlFlow::Continue(())
}

async fn stores() -> (TestDatabase, PgStore, SqliteStore) {
    let database = TestDatabase::create().await;
    let postgres = PgStore::connect(database.url()).await.unwrap();
    let sqlite = SqliteStore::connect("sqlite::memory:").await.unwrap();
    postgres.migrate().await.unwrap();
    sqlite.migrate().await.unwrap();
    postgres.create_tables(&[Specimen::table()]).await.unwrap();
    sqlite.create_tables(&[Specimen::table()]).await.unwrap();
    (database, postgres, sqlite)
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is no number")),
    )
}

#[test]
fn differential_conditions_mean_the_same_everywhere() {
    let cases = number("DIFFERENTIAL_CASES").unwrap_or(2_000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_database, postgres, sqlite) = runtime.block_on(stores());
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..Config::default()
    };
    let input = (
        prop::collection::vec(specimens(), 1..12),
        prop::collection::vec(queries(), 1..=BATCH),
    );
    let (next, telling) = (AtomicI64::new(1), AtomicU64::new(0));
    let mut runner = crate::runner(config.clone());
    let mut asked = 0;
    while asked < cases {
        // A runner counts its cases over all runs.
        runner = TestRunner::new_with_rng(config.clone(), runner.new_rng());
        let size = AtomicU64::new(0);
        let result = runner.run(&input, |(mut specimens, queries)| {
            size.store(queries.len() as u64, Ordering::Relaxed);
            let first = next.fetch_add(1_000, Ordering::Relaxed);
            for (specimen, id) in specimens.iter_mut().zip(first..) {
                specimen.id = id;
                specimen.root.raise(SpecimenEvent::Made);
            }
            let context = tenant(&first.to_string());
            let asked = runtime.block_on(async {
                ask(&sqlite, "sqlite", &context, &specimens, &queries, &telling).await?;
                ask(
                    &postgres, "postgres", &context, &specimens, &queries, &telling,
                )
                .await
            });
            match asked {
                ControlFlow::Break(error) => Err(error),
                ControlFlow::Continue(()) => Ok(()),
            }
        });
        match result {
            Ok(()) => asked += size.into_inner(),
            Err(TestError::Fail(reason, _)) => panic!("{reason}"),
            Err(error) => panic!("{error}"),
        }
    }
    // On both databases. Conditions that find all rows or none would agree by chance.
    let telling = telling.into_inner() / 2;
    println!("{telling} of {asked} conditions found some rows and not all");
    assert!(telling * 5 > asked, "{telling} of {asked} tell anything");
}
