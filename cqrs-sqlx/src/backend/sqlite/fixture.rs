//! Tables, writes and databases for the tests of this folder.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, NaiveDate, TimeZone, Utc};
use cqrs_core::mapping::{ColumnRole, Table, Value};
use cqrs_core::staging::{NewEvent, Operation, StagedWrite};
use cqrs_core::{ContentHash, Metadata, TenantId};
use sqlx::sqlite::SqliteConnectOptions;
use uuid::Uuid;

use super::Sqlite;
use super::session::Session;
use crate::backend::Backed;

/// An aggregate with everything that the framework keeps.
pub(super) static PLAN: LazyLock<Table> = LazyLock::new(|| {
    Table::builder("plan")
        .version()
        .tenant("tenant_id")
        .audit()
        .soft_delete()
        .key::<String>("id")
        .column::<String>("name")
        .column::<Option<i32>>("priority")
        .build()
});

/// An aggregate with a column of every type, and nothing else of the framework.
pub(super) static EVERY_TYPE: LazyLock<Table> = LazyLock::new(|| {
    Table::builder("every_type")
        .version()
        .key::<Uuid>("id")
        .column::<bool>("a_bool")
        .column::<i16>("an_int16")
        .column::<i32>("an_int32")
        .column::<i64>("an_int64")
        .column::<f32>("a_float32")
        .column::<f64>("a_float64")
        .column::<Option<String>>("select")
        .column::<Vec<u8>>("some_bytes")
        .column::<Option<Uuid>>("a_uuid")
        .column::<DateTime<Utc>>("a_timestamp")
        .column::<NaiveDate>("a_date")
        .column::<serde_json::Value>("some_json")
        .build()
});

/// A read model with a key of two columns within a tenant.
pub(super) static READ_MODEL: LazyLock<Table> = LazyLock::new(|| {
    Table::builder("depot_day")
        .tenant("tenant")
        .key::<String>("depot")
        .key::<NaiveDate>("day")
        .column::<i64>("plans")
        .build()
});

/// Midnight of this day of 2024.
pub(super) fn day(day: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2024, 1, day, 0, 0, 0).unwrap()
}

pub(super) fn metadata() -> Metadata {
    Metadata {
        correlation_id: Uuid::from_u128(7),
        causation_id: None,
        actor: Some("ann".to_owned()),
        trace: None,
    }
}

/// The first write of a plan, named `first`.
pub(super) fn insert_plan(tenant: &str, id: &str) -> StagedWrite {
    write_plan(Operation::Insert, tenant, id, 0, "first")
}

/// A write of a plan on day `1 + version` with one event.
pub(super) fn write_plan(
    operation: Operation,
    tenant: &str,
    id: &str,
    version: u64,
    name: &str,
) -> StagedWrite {
    let day = day(1 + u32::try_from(version).unwrap());
    let (deleted_at, deleted_by) = if operation == Operation::Remove {
        (Value::Timestamp(day), Value::Text("ann".into()))
    } else {
        (Value::Null, Value::Null)
    };
    let row = vec![
        Value::Int(i64::try_from(version).unwrap() + 1),
        Value::Text(tenant.into()),
        Value::Timestamp(day),
        Value::Text(format!("creator {version}")),
        Value::Timestamp(day),
        Value::Text(format!("updater {version}")),
        deleted_at,
        deleted_by,
        Value::Text(id.into()),
        Value::Text(name.into()),
        Value::Null,
    ];
    StagedWrite {
        tenant: Some(TenantId::new(tenant).unwrap()),
        ..write(&PLAN, operation, id, Value::Text(id.into()), version, row)
    }
}

/// A write with one event.
pub(super) fn write(
    table: &'static Table,
    operation: Operation,
    id: &str,
    key: Value,
    version: u64,
    row: Vec<Value>,
) -> StagedWrite {
    assert_eq!(row.len(), table.columns().len());
    assert_eq!(table.columns()[0].role(), ColumnRole::Version);
    StagedWrite {
        aggregate_type: table.name(),
        aggregate_id: id.to_owned(),
        table,
        operation,
        key,
        tenant: None,
        expected_version: version,
        new_version: version + 1,
        row,
        children: Vec::new(),
        events: vec![event(version + 1)],
        snapshot: None,
    }
}

/// An event that brings its aggregate to this version.
pub(super) fn event(version: u64) -> NewEvent {
    let payload = format!("{{\"version\":{version}}}");
    NewEvent {
        event_id: Uuid::now_v7(),
        aggregate_version: version,
        event_type: "plan.written",
        schema_version: 1,
        schema_id: None,
        content_hash: ContentHash::of(&payload),
        payload,
        occurred_at: day(1),
    }
}

/// A file in the directory for temporary files, removed with everything beside it.
#[derive(Debug)]
pub(super) struct TempDatabase {
    path: PathBuf,
}

impl TempDatabase {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "cqrs-sqlx-test-{}-{}.db",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self {
            path: std::env::temp_dir().join(name),
        }
    }

    pub(super) fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
    }

    /// A connection to the migrated database with the tables of this module.
    pub(super) async fn connect(&self) -> Session {
        prepare(Session::open(&self.options()).await.unwrap()).await
    }
}

impl Drop for TempDatabase {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            // A file that stays is of no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A migrated database in memory with the tables of this module.
pub(super) async fn memory() -> Session {
    let options = "sqlite::memory:".parse::<SqliteConnectOptions>().unwrap();
    prepare(Session::open(&options).await.unwrap()).await
}

async fn prepare(mut connection: Session) -> Session {
    Sqlite::migrate(&mut connection).await.unwrap();
    for table in [&*PLAN, &*EVERY_TYPE, &*READ_MODEL] {
        let sql = Sqlite::create_table_sql(table);
        Sqlite::execute_script(&mut connection, sql).await.unwrap();
    }
    connection
}
