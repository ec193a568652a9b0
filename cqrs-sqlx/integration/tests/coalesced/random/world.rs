//! The two types of aggregates, and the database that all cases share.

use std::collections::BTreeMap;

use cqrs_core::{
    Aggregate, DomainEvent, Entity, Error, RequestContext, Result, Root, StoreErrorKind,
};
use cqrs_core::{AggregateRoot, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{PgStore, PgUnitOfWork, StoreOptions};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::model::{Command, Key, Kind, Model, Outcome, Row, Step};
use cqrs_integration::each::Kind as _;

macro_rules! aggregate {
    ($name:ident, $event:ident, $table:literal $(, $flag:ident)*) => {
        #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
        #[event(aggregate = $table)]
        pub(super) enum $event {
            Said { grams: i64 },
        }

        #[derive(Debug, Clone, Aggregate)]
        #[aggregate(table = $table, event = $event $(, $flag)*)]
        pub(super) struct $name {
            #[aggregate(id)]
            id: String,
            #[aggregate(root)]
            root: Root<$event>,
            label: String,
            grams: i64,
        }

        impl $name {
            fn stage(&self, command: &Command, uow: &mut PgUnitOfWork) -> Result<()> {
                let mut one = self.clone();
                one.label.clone_from(&command.label);
                one.grams = command.grams;
                if !matches!(command.step, Step::Relabel | Step::Touch) {
                    for _ in 0..command.events {
                        one.root.raise($event::Said { grams: command.grams });
                    }
                }
                match command.step {
                    Step::Remove => uow.remove(one),
                    _ => uow.save(one),
                }
            }

            fn new(id: String) -> Self {
                Self { id, root: Root::new(), label: String::new(), grams: 0 }
            }

            async fn load(id: String, uow: &mut PgUnitOfWork) -> Loaded {
                Loaded::$name(uow.get::<$name>(id).await.unwrap())
            }
        }
    };
}

aggregate!(Carton, CartonEvent, "carton", tenant, soft_delete, audit);
aggregate!(Pallet, PalletEvent, "pallet");

/// An aggregate as it was loaded, or is about to be created.
#[derive(Debug, Clone)]
pub(super) enum Loaded {
    Carton(Carton),
    Pallet(Pallet),
}

impl Loaded {
    pub(super) fn new(kind: Kind, id: String) -> Self {
        match kind {
            Kind::Carton => Self::Carton(Carton::new(id)),
            Kind::Pallet => Self::Pallet(Pallet::new(id)),
        }
    }

    pub(super) async fn load(kind: Kind, id: String, uow: &mut PgUnitOfWork) -> Self {
        match kind {
            Kind::Carton => Carton::load(id, uow).await,
            Kind::Pallet => Pallet::load(id, uow).await,
        }
    }

    pub(super) fn stage(&self, command: &Command, uow: &mut PgUnitOfWork) -> Result<()> {
        match self {
            Self::Carton(carton) => carton.stage(command, uow),
            Self::Pallet(pallet) => pallet.stage(command, uow),
        }
    }

    pub(super) fn version(&self) -> u64 {
        match self {
            Self::Carton(carton) => carton.root().version(),
            Self::Pallet(pallet) => pallet.root().version(),
        }
    }

    pub(super) fn data(&self) -> (String, i64) {
        match self {
            Self::Carton(carton) => (carton.label.clone(), carton.grams),
            Self::Pallet(pallet) => (pallet.label.clone(), pallet.grams),
        }
    }
}

/// A database, and two stores that commit, as two processes would.
pub(super) struct World {
    database: TestDatabase,
    /// What looks at the database past the framework.
    looking: PgPool,
    proxy: WireProxy,
    pub(super) plain: PgStore,
    pub(super) committing: [PgStore; 2],
}

impl World {
    /// The two stores send up to so many commits together, or none.
    pub(super) async fn create(most: [Option<usize>; 2]) -> Self {
        let database = TestDatabase::create().await;
        let proxy = WireProxy::start(database.url()).await;
        let plain = stores::postgres_with(database.url(), StoreOptions::default()).await;
        plain.migrate().await.unwrap();
        let tables = [Carton::table(), Pallet::table()];
        plain.create_tables(&tables).await.unwrap();
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        for table in ["carton", "pallet"] {
            let keys = format!(
                "CREATE UNIQUE INDEX {table}_label ON {table} (label);
                 ALTER TABLE {table} ADD CONSTRAINT {table}_grams CHECK (grams >= 0)"
            );
            let script = sqlx::raw_sql(AssertSqlSafe(keys));
            script.execute(&mut connection).await.unwrap();
        }
        let [first, second] = most.map(|most| {
            let options = StoreOptions::default().max_connections(6);
            most.map_or(options.clone(), |most| options.coalesce(most))
        });
        let committing = [
            stores::postgres_with(proxy.url(), first).await,
            stores::postgres_with(database.url(), second).await,
        ];
        let looking = PgPool::connect_lazy(database.url()).unwrap();
        Self {
            database,
            looking,
            proxy,
            plain,
            committing,
        }
    }

    /// How many statements carried commits of several callers, of one of the stores.
    pub(super) fn flushes(&self) -> usize {
        let sent = self.proxy.statements_since(&Default::default());
        sent.iter()
            .filter(|sql| sql.contains("e(correlation_id"))
            .count()
    }

    /// Waits until nothing is under way any more.
    pub(super) async fn end(&mut self) {
        self.looking.close().await;
        for store in &self.committing {
            store.close();
        }
        self.plain.close();
        cqrs_sqlx::Postgres::deserted(self.database.url()).await;
        self.looking = PgPool::connect_lazy(self.database.url()).unwrap();
    }

    /// The rows and the versions in the log of a case.
    pub(super) async fn model(&self, case: u64) -> Model {
        let mut model = Model::default();
        for kind in [Kind::Carton, Kind::Pallet] {
            let deleted = match kind {
                Kind::Carton => "deleted_at IS NOT NULL",
                Kind::Pallet => "false",
            };
            let rows: Vec<(String, i64, String, i64, bool)> =
                sqlx::query_as(AssertSqlSafe(format!(
                    "SELECT id, version, label, grams, {deleted} FROM {} WHERE id LIKE $1",
                    kind.table()
                )))
                .bind(prefix(case) + "%")
                .fetch_all(&self.looking)
                .await
                .unwrap();
            for (id, version, label, grams, deleted) in rows {
                let row = Row {
                    version: version as u64,
                    label,
                    grams,
                    deleted,
                };
                model.rows.insert((kind, number(&id)), row);
            }
        }
        for (kind, id, versions) in self.streams(case).await {
            let dense: Vec<i64> = (1..=versions.len() as i64).collect();
            assert_eq!(versions, dense, "{kind:?} {id}");
            model
                .logged
                .insert((kind, number(&id)), versions.len() as u64);
        }
        model
    }

    async fn streams(&self, case: u64) -> Vec<(Kind, String, Vec<i64>)> {
        let streams: Vec<(String, String, Vec<i64>)> = sqlx::query_as(
            "SELECT aggregate_type, aggregate_id,
                    array_agg(aggregate_version ORDER BY position) FROM cqrs_event
             WHERE aggregate_id LIKE $1 GROUP BY 1, 2",
        )
        .bind(prefix(case) + "%")
        .fetch_all(&self.looking)
        .await
        .unwrap();
        let kind = |name: &str| match name {
            "carton" => Kind::Carton,
            _ => Kind::Pallet,
        };
        let streams = streams.into_iter();
        streams
            .map(|(name, id, versions)| (kind(&name), id, versions))
            .collect()
    }

    /// The events in the log of each aggregate of a case.
    pub(super) async fn events(&self, case: u64) -> BTreeMap<Uuid, Key> {
        let events: Vec<(Uuid, String, String)> = sqlx::query_as(
            "SELECT event_id, aggregate_type, aggregate_id FROM cqrs_event
             WHERE aggregate_id LIKE $1",
        )
        .bind(prefix(case) + "%")
        .fetch_all(&self.looking)
        .await
        .unwrap();
        let key = |name: &str, id: &str| match name {
            "carton" => (Kind::Carton, number(id)),
            _ => (Kind::Pallet, number(id)),
        };
        let events = events.iter();
        events
            .map(|(event, name, id)| (*event, key(name, id)))
            .collect()
    }
}

/// The id of an aggregate.
pub(super) fn id(case: u64, number: u64) -> String {
    format!("{}{number}", prefix(case))
}

fn prefix(case: u64) -> String {
    format!("{case}-")
}

fn number(id: &str) -> u64 {
    let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
    number.expect("an id of these tests")
}

/// Whose aggregates of this number are.
pub(super) fn context(number: u64) -> RequestContext {
    stores::tenant(if number.is_multiple_of(3) {
        "south"
    } else {
        "north"
    })
}

/// What an error means in the model.
pub(super) fn outcome(error: Error, own: &str) -> Outcome {
    match error {
        Error::Conflict { found, id, .. } if id == own => Outcome::Conflict { found },
        Error::NotFound { id, .. } if id == own => Outcome::NotFound,
        Error::AlreadyExists { id, .. } if id == own => Outcome::AlreadyExists,
        Error::Store(error) => match error.kind() {
            StoreErrorKind::Constraint { name: Some(name) } => Outcome::Constraint(name.clone()),
            _ => panic!("{own}: {error:?}"),
        },
        error => panic!("{own}: {error:?}"),
    }
}
