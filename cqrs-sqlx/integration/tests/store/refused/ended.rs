//! Transactions that SQLite ends with a statement of the application that fails.

use std::time::Duration;

use cqrs_core::{
    Envelope, Error, Owned, Position, Projection, ProjectionTransaction, RawPayload,
    RequestContext, Result, Store, StoreErrorKind, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelView, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{SqlTransaction, Sqlite, SqliteStore, SubscriptionFailure};
use sqlx::{Connection, SqliteConnection};

use super::logged;
use super::own_sql::{THEN, Then, commit, go_on, with_notes};
use cqrs_integration::each::{Fresh, Kind, kind};

/// Statements that fail, and with which SQLite ends the transaction.
const ENDING: [&str; 5] = [
    "INSERT OR ROLLBACK INTO note VALUES ('taken')",
    "INSERT INTO other VALUES ('guarded')",
    "INSERT INTO strict_note VALUES ('taken')",
    "SAVEPOINT own; INSERT OR ROLLBACK INTO note VALUES ('taken')",
    "ROLLBACK; SELECT * FROM no_such_table",
];

async fn with_ending_statements() -> (Fresh<Sqlite>, SqliteStore) {
    let (fresh, store) = with_notes::<Sqlite>().await;
    fresh
        .run(
            "CREATE TRIGGER guard BEFORE INSERT ON other WHEN NEW.text = 'guarded'
             BEGIN SELECT RAISE(ROLLBACK, 'guarded'); END;
             CREATE TABLE strict_note (text text UNIQUE ON CONFLICT ROLLBACK);
             INSERT INTO strict_note VALUES ('taken')",
        )
        .await;
    (fresh, store)
}

#[tokio::test]
async fn nothing_is_written_after_sqlite_has_ended_the_transaction() {
    let (fresh, store) = with_ending_statements().await;
    let first = Parcel::register("first");
    let id = domain::id(&first);
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(first).unwrap();
    let _ = uow.commit().await.unwrap();
    let before = fresh.state().await;
    for ending in ENDING {
        for then in THEN {
            for staged in [false, true] {
                let name = format!("{ending}, staged: {staged}, then {then:?}");
                let mut uow = store.unit_of_work(&stores::tenant("north"));
                if staged {
                    let mut first: Parcel = uow.get(id).await.unwrap();
                    first.weigh(5);
                    uow.save(first).unwrap();
                }
                let connection = uow.connection().await.unwrap();
                Sqlite::run_on(connection, ending.to_owned())
                    .await
                    .unwrap_err();
                let mut errors = Vec::new();
                errors.extend(go_on(&mut uow, then).await.err());
                errors.extend(uow.commit().await.err());
                assert_eq!(fresh.state().await, before, "{name}");
                let expected = 1 + usize::from(!matches!(then, Then::Commit | Then::Save));
                assert_eq!(errors.len(), expected, "{name}: {errors:?}");
                for error in &errors {
                    assert_eq!(*kind(error), StoreErrorKind::Usage, "{name}: {error}");
                    assert!(!error.is_retryable());
                }
                let says = "has ended the transaction";
                assert!(
                    errors[0].to_string().contains(says),
                    "{name}: {}",
                    errors[0]
                );
            }
        }
    }
    assert_eq!(fresh.dump("note").await, ["'taken'"]);
    let next = commit(&store, &["next", "and another"]).await;
    assert_eq!(logged(&fresh).await[1..], next);
}

/// The only connection is the database: it must not be closed.
#[tokio::test]
async fn a_savepoint_that_sqlite_has_ended_leaves_a_database_in_memory_usable() {
    let store = SqliteStore::connect("sqlite::memory:").await.unwrap();
    store.migrate().await.unwrap();
    store.create_tables(&domain::tables()).await.unwrap();
    let own = async |connection: &mut SqliteConnection| {
        let mut outer = connection.begin().await?;
        let mut inner = outer.begin().await?;
        let ending = "INSERT OR ROLLBACK INTO note VALUES ('taken')";
        let ended = sqlx::raw_sql(ending).execute(&mut *inner).await;
        ended.unwrap_err();
        inner.rollback().await
    };
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let note = "CREATE TABLE note (text UNIQUE); INSERT INTO note VALUES ('taken')";
    Sqlite::run_on(uow.connection().await.unwrap(), note.to_owned())
        .await
        .unwrap();
    let _ = uow.commit().await.unwrap();
    for end in 0..3 {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register("before")).unwrap();
        own(uow.connection().await.unwrap()).await.unwrap_err();
        match end {
            0 => {
                uow.save(Parcel::register("after")).unwrap();
                let error = uow.commit().await.unwrap_err();
                assert_eq!(*kind(&error), StoreErrorKind::Usage, "{error}");
            }
            1 => uow.rollback().await,
            _ => drop(uow),
        }
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        assert!(
            uow.repository::<Parcel>()
                .find_open(9)
                .await
                .unwrap()
                .is_empty()
        );
    }
    commit(&store, &["next", "and another"]).await;
    let system = RequestContext::system();
    let log = store.events(&system, Position::START, 9).await;
    assert_eq!(log.unwrap().len(), 2);
}

/// Applies each event after a statement that fails, and looks at no error.
struct Careless {
    ending: &'static str,
    /// By a statement of the framework, not of the application.
    by_upsert: bool,
}

impl Projection<SqlTransaction<Sqlite>> for Careless {
    type Event = RawPayload;

    fn name(&self) -> &str {
        "careless"
    }

    async fn apply(
        &self,
        page: &[Envelope<RawPayload>],
        transaction: &mut SqlTransaction<Sqlite>,
    ) -> Result<()> {
        let row = |event: &Envelope<RawPayload>| -> Result<Owned<ParcelView>> {
            Ok(Owned {
                tenant: event.tenant().cloned(),
                row: ParcelView {
                    id: event.aggregate_id()?,
                    version: event.aggregate_version(),
                    events: 1,
                    grams: 0,
                    digest: 0,
                },
            })
        };
        if self.by_upsert {
            transaction.upsert(&[row(&page[0])?]).await.unwrap_err();
        } else {
            Sqlite::run_on(transaction.connection(), self.ending.to_owned())
                .await
                .unwrap_err();
        }
        for event in page {
            let _ = transaction.upsert(&[row(event)?]).await;
        }
        let last = Sqlite::run_on(transaction.connection(), "SELECT 1".to_owned());
        last.await.map_err(Error::other)
    }
}

#[tokio::test]
async fn no_event_is_lost_after_sqlite_has_ended_the_transaction_of_a_page() {
    let guarded = "CREATE TRIGGER view_guard BEFORE INSERT ON parcel_view
                   WHEN (SELECT count(*) FROM other) = 0
                   BEGIN SELECT RAISE(ROLLBACK, 'guarded'); END";
    for ending in ENDING.into_iter().chain([guarded]) {
        let (fresh, store) = with_ending_statements().await;
        let by_upsert = ending == guarded;
        if by_upsert {
            fresh.run(guarded).await;
        }
        commit(&store, &["first", "second"]).await;
        let projector = || store.projector().retry_delays([Duration::ZERO]);
        let careless = Careless { ending, by_upsert };
        let error = projector().projection(careless).run_until_idle().await;
        let Error::Other(error) = error.unwrap_err() else {
            panic!("not a subscription's failure");
        };
        let failure: SubscriptionFailure = *error.downcast().unwrap();
        assert_eq!(failure.attempts, 2, "{ending}");
        assert!(
            failure.error.contains("ended the transaction"),
            "{ending}: {}",
            failure.error
        );
        assert_eq!(
            fresh.dump("parcel_view").await,
            Vec::<String>::new(),
            "{ending}"
        );
        assert_eq!(
            store.subscriptions().await.unwrap()[0].position.0,
            0,
            "{ending}"
        );

        // The same subscription, by code that takes care.
        store
            .operations(&RequestContext::system())
            .unwrap()
            .resume("careless")
            .await
            .unwrap();
        fresh.run("INSERT INTO other VALUES ('open')").await;
        let careful = Careless {
            ending: "SELECT * FROM no_such_table",
            by_upsert: false,
        };
        let applied = projector().projection(careful).run_until_idle().await;
        assert_eq!(applied.unwrap(), 2);
        assert_eq!(fresh.dump("parcel_view").await.len(), 2, "{ending}");
    }
}
