//! Row-level security: what SQL of the application can do in a unit of work of one tenant.

use cqrs_core::sealed::{Sealing, Subject};
use cqrs_core::{
    Error, IdempotencyKey, Position, Query, ReadModels, Repository, RequestContext, RowProjection,
    Store, StoreErrorKind, Subscription, UnitOfWork,
};
use cqrs_integration::database::{SecuredDatabase, TestDatabase, TestFile};
use cqrs_integration::domain::{self, Parcel, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::stores::{self, tenant};
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{PgStore, PgUnitOfWork, Postgres, SqliteStore, StoreOptions, SwitchOver};
use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use cqrs_integration::each::{Kind, kind};

/// Every table with rows of tenants, and its column that says whose they are.
const TABLES: [(&str, &str); 5] = [
    ("parcel", "tenant_id"),
    ("parcel_view", "tenant_id"),
    ("cqrs_event", "tenant_id"),
    ("cqrs_receipt", "scope"),
    ("cqrs_subject_key", "scope"),
];

fn options() -> StoreOptions {
    StoreOptions::default()
        .max_connections(1)
        .notifications(false)
        .row_level_security()
}

async fn open(url: &str) -> PgStore {
    let url = url.parse().unwrap();
    PgStore::connect_with(url, options()).await.unwrap()
}

/// A store with a parcel, its view, its event, a receipt and a key of each of two tenants.
async fn filled() -> (SecuredDatabase, PgStore, ParcelId) {
    let database = SecuredDatabase::create(&domain::tables()).await;
    let store = open(database.url()).await;
    store.verify(&domain::tables()).await.unwrap();
    let key = IdempotencyKey::new("one for all").unwrap();
    let mut ids = Vec::new();
    for name in ["north", "south"] {
        let context = tenant(name);
        let receipt = store.execute_once(&context, &key, async |uow| {
            let parcel = Parcel::register(name);
            let id = domain::id(&parcel);
            uow.save(parcel)?;
            Ok(id)
        });
        ids.push(receipt.await.unwrap().into_output());
        let keys = store.subject_keys(&context);
        drop(
            keys.key(&Subject::new("one for all").unwrap())
                .await
                .unwrap(),
        );
    }
    let projector = store.projector().rows(ParcelViews);
    assert_eq!(projector.run_until_idle().await.unwrap(), 2);
    (database, store, ids[0])
}

/// The tenants whose rows a unit of work sees in a table.
async fn seen(uow: &mut PgUnitOfWork, table: &str, column: &str) -> Vec<String> {
    let sql = format!("SELECT {column} FROM {table} ORDER BY 1");
    let connection = uow.connection().await.unwrap();
    let rows = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection);
    rows.await.unwrap()
}

async fn run(uow: &mut PgUnitOfWork, sql: &'static str) -> sqlx::Result<u64> {
    let connection = uow.connection().await.unwrap();
    let done = sqlx::query(sql).execute(connection).await;
    done.map(|done| done.rows_affected())
}

#[tokio::test]
async fn own_sql_sees_and_writes_rows_of_its_tenant_alone() {
    let (database, store, _) = filled().await;
    for (name, other) in [("north", "south"), ("south", "north")] {
        let mut uow = store.unit_of_work(&tenant(name));
        for (table, column) in TABLES {
            assert_eq!(seen(&mut uow, table, column).await, [name], "{table}");
        }
        assert_eq!(
            run(&mut uow, "UPDATE parcel SET grams = 5").await.unwrap(),
            1
        );
        assert_eq!(run(&mut uow, "DELETE FROM parcel_view").await.unwrap(), 1);
        let _ = uow.commit().await.unwrap();

        for (table, column) in TABLES {
            // As another's, and made another's.
            let copy = format!(
                "INSERT INTO {table} SELECT (jsonb_populate_record(t, '{{\"{column}\": \"{other}\"}}')).*
                 FROM {table} AS t"
            );
            let given = format!("UPDATE {table} SET {column} = '{other}'");
            for sql in [copy, given] {
                let mut uow = store.unit_of_work(&tenant(name));
                let connection = uow.connection().await.unwrap();
                let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                    .execute(connection)
                    .await;
                if table == "parcel_view" {
                    // There is none left to take.
                    assert_eq!(rows.unwrap().rows_affected(), 0);
                    continue;
                }
                let error = rows.unwrap_err();
                let code = error.as_database_error().and_then(DatabaseError::code);
                assert_eq!(code.as_deref(), Some("42501"), "{sql}: {error}");
            }
        }
    }
    let grams = "SELECT string_agg(grams::text, ',') FROM parcel".to_owned();
    assert_eq!(
        Postgres::texts(database.superuser_url(), grams).await,
        ["5,5"]
    );

    let mut system = store.unit_of_work(&RequestContext::system());
    let all = seen(&mut system, "parcel", "tenant_id").await;
    assert_eq!(all, ["north", "south"]);
    system.rollback().await;
    let mut nobody = store.unit_of_work(&tenant("west"));
    let none = seen(&mut nobody, "parcel", "tenant_id").await;
    assert!(none.is_empty(), "{none:?}");
}

/// There is one connection. Whoever gets it next is confined to his own tenant, however the one
/// before ended; and a session that says nothing sees nothing.
#[tokio::test]
async fn nothing_leaks_to_the_next_user_of_a_connection() {
    let (database, store, north) = filled().await;
    for end in 0..5 {
        let mut uow = store.unit_of_work(&match end {
            4 => RequestContext::system(),
            _ => tenant("north"),
        });
        let _: Parcel = uow.get(north).await.unwrap();
        let rows = seen(&mut uow, "parcel", "tenant_id").await;
        assert_eq!(rows.len(), if end == 4 { 2 } else { 1 });
        match end {
            0 | 4 => drop(uow.commit().await.unwrap()),
            1 => uow.rollback().await,
            2 => drop(uow),
            _ => {
                run(&mut uow, "SELECT 1 / 0").await.unwrap_err();
                uow.commit().await.unwrap_err();
            }
        }
        let south = tenant("south");
        let views = store.read_models(&south);
        let views = views.query(Query::<ParcelView>::all()).await.unwrap();
        assert_eq!(views.len(), 1);
        let log = store.events(&south, Position::START, 9).await.unwrap();
        assert_eq!(log.len(), 1);
        let mut uow = store.unit_of_work(&south);
        assert_eq!(seen(&mut uow, "parcel", "tenant_id").await, ["south"]);
        let settings = "SELECT current_setting('cqrs.tenant') || current_setting('cqrs.system')";
        let connection = uow.connection().await.unwrap();
        let row = sqlx::query(settings).fetch_one(connection).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "southoff");
    }

    let mut session = PgConnection::connect(database.url()).await.unwrap();
    for (table, _) in TABLES {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut session)
            .await
            .unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn verify_reports_what_is_not_behind_policies() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let store = open(database.url()).await;
    let error = store.verify(&domain::tables()).await.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Schema);
    let text = error.to_string();
    for expected in [
        "expected one that row-level security holds for, found a superuser",
        "table parcel: expected forced row-level security, found none",
        "table parcel: expected the policy cqrs_tenant alone, found no policy",
        "table cqrs_event: expected forced row-level security",
        "table cqrs_history: expected forced row-level security",
        "table cqrs_receipt: expected forced row-level security",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }

    // A second policy would let through what the first does not.
    let secured = SecuredDatabase::create(&domain::tables()).await;
    let store = open(secured.url()).await;
    store.verify(&domain::tables()).await.unwrap();
    let wide = "CREATE POLICY wide ON parcel USING (true)".to_owned();
    Postgres::run(secured.superuser_url(), wide).await.unwrap();
    let error = store.verify(&domain::tables()).await.unwrap_err();
    let expected = "table parcel: expected the policy cqrs_tenant alone, found cqrs_tenant, wide";
    assert!(error.to_string().contains(expected), "{error}");
}

/// Whoever has changed the policy is told.
#[tokio::test]
async fn verify_reports_policies_that_were_changed() {
    let secured = SecuredDatabase::create(&domain::tables()).await;
    let store = open(secured.url()).await;
    for change in ["USING (true)", "WITH CHECK (true)"] {
        let altered = format!("ALTER POLICY cqrs_tenant ON parcel {change}");
        let superuser = secured.superuser_url();
        Postgres::run(superuser, altered).await.unwrap();
        let error = store.verify(&domain::tables()).await.unwrap_err();
        let expected = "table parcel: expected the policy cqrs_tenant alone, found cqrs_tenant \
                        with another condition";
        assert!(error.to_string().contains(expected), "{error}");
        let policies = PgStore::row_level_security_sql(&domain::tables());
        Postgres::run(superuser, policies).await.unwrap();
        store.verify(&domain::tables()).await.unwrap();
    }
}

/// Settings of the session outlive the transaction that made them; nothing is confined by those.
#[tokio::test]
async fn settings_of_the_session_open_nothing() {
    let (_database, store, north) = filled().await;
    for setting in [
        "SELECT set_config('cqrs.system', 'on', false)",
        "SELECT set_config('cqrs.tenant', 'south', false)",
        "RESET ALL",
    ] {
        let mut uow = store.unit_of_work(&tenant("north"));
        run(&mut uow, setting).await.unwrap();
        let _ = uow.commit().await.unwrap();

        let north_alone = tenant("north");
        let mut uow = store.unit_of_work(&north_alone);
        assert_eq!(seen(&mut uow, "parcel", "tenant_id").await, ["north"]);
        uow.rollback().await;
        let views = store.read_models(&north_alone);
        let views = views.query(Query::<ParcelView>::all()).await.unwrap();
        assert_eq!(views.len(), 1, "{setting}");
        let log = store
            .events(&north_alone, Position::START, 9)
            .await
            .unwrap();
        assert_eq!(log.len(), 1, "{setting}");
        let mut uow = store.unit_of_work(&tenant("south"));
        let found = uow.repository::<Parcel>().find(north).await.unwrap();
        assert!(found.is_none(), "{setting}");
    }
}

/// Pages follow each other without a pause, each in a transaction of its own.
#[tokio::test]
async fn a_projector_sees_every_tenant_on_every_page() {
    let (_database, store, _) = filled().await;
    for number in 0..6 {
        let mut uow = store.unit_of_work(&tenant(if number % 2 == 0 { "north" } else { "south" }));
        let mut parcel = Parcel::register("one more");
        parcel.weigh(number);
        uow.save(parcel).unwrap();
        let _ = uow.commit().await.unwrap();
    }
    let projector = store.projector().rows(ParcelViews).page_size(1);
    assert_eq!(projector.run_until_idle().await.unwrap(), 12);
    let system = RequestContext::system();
    let views = store.read_models(&system);
    let views = views.query(Query::<ParcelView>::all()).await.unwrap();
    assert_eq!(views.len(), 8);
}

/// Rows that are built anew, and copies of rows, are behind policies from their first moment on.
#[tokio::test]
async fn rebuilds_and_snapshots_are_behind_policies() {
    let (database, store, _) = filled().await;
    let role = "SELECT current_user::text".to_owned();
    let role = Postgres::texts(database.url(), role).await.remove(0);
    let own =
        format!("ALTER TABLE parcel_view OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}");
    Postgres::run(database.superuser_url(), own).await.unwrap();
    let operations = store.operations(&RequestContext::system()).unwrap();
    let views = Subscription::named(ParcelViews::NAME).rows(ParcelViews);
    let taken = operations.snapshot(&views).await.unwrap();
    assert_eq!(taken.tables[0].rows, 2);
    let copy = format!("cqrs_copy_{}_0", taken.id.simple());
    let mut system = store.unit_of_work(&RequestContext::system());
    assert_eq!(seen(&mut system, &copy, "tenant_id").await.len(), 2);
    system.rollback().await;
    let building = operations.rebuild(&views, SwitchOver::WhenTold);
    building.await.unwrap();
    let projector = store.projector().rows(ParcelViews);
    assert_eq!(projector.run_until_idle().await.unwrap(), 2);
    for name in ["north", "south"] {
        let mut uow = store.unit_of_work(&tenant(name));
        let built = seen(&mut uow, "parcel_view__new", "tenant_id").await;
        assert_eq!(built, [name]);
        assert!(seen(&mut uow, &copy, "tenant_id").await.is_empty());
        uow.rollback().await;
    }
    operations.switch_rebuild(ParcelViews::NAME).await.unwrap();
    projector.run_until_idle().await.unwrap();
    operations.restore(&views).await.unwrap();
    store.verify(&domain::tables()).await.unwrap();
    for name in ["north", "south"] {
        let mut uow = store.unit_of_work(&tenant(name));
        assert_eq!(seen(&mut uow, "parcel_view", "tenant_id").await, [name]);
        uow.rollback().await;
    }
}

#[tokio::test]
async fn sqlite_says_that_it_has_none() {
    let file = TestFile::create();
    let url = file.url().parse().unwrap();
    let error = SqliteStore::connect_with(url, options()).await.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Usage);
    assert!(error.to_string().contains("row-level security"), "{error}");
    assert!(!matches!(error, Error::Other(_)));
}

/// What the page on tenancy says that it costs.
#[tokio::test]
async fn a_read_and_a_commit_cost_their_transaction() {
    let (database, store, north) = filled().await;
    store.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = open(proxy.url()).await;
    let context = tenant("north");
    for warm in [false, true] {
        let before = proxy.counts();
        let mut uow = store.unit_of_work(&context);
        let mut parcel: Parcel = uow.get(north).await.unwrap();
        let read = proxy.counts().since(&before);
        parcel.weigh(1);
        uow.save(parcel).unwrap();
        let _ = uow.commit().await.unwrap();
        let all = proxy.counts().since(&before);
        if warm {
            let sent = proxy.statements_since(&before);
            assert_eq!(read.round_trips, 4, "{sent:#?}");
            assert_eq!(all.round_trips, 4 + 4, "{sent:#?}");
        }
    }
}
