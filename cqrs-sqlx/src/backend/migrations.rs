//! The migrations of the framework's own tables: the same ones on each database.

use cqrs_core::{Error, StoreError, StoreErrorKind};
use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

/// What is being done, for messages.
pub(super) const DOING: &str = "migrating the framework's tables";

/// The migrations of a database, by the name of their folder.
macro_rules! migrations {
    ($database:literal) => {
        $crate::backend::migrations::migrations!(
            $database,
            (1, "log", "0001_log"),
            (2, "receipt", "0002_receipt"),
            (3, "segment", "0003_segment"),
            (4, "dead letter", "0004_dead_letter"),
            (5, "history", "0005_history"),
            (6, "mark", "0006_mark"),
            (7, "rebuild", "0007_rebuild"),
            (9, "attempts", "0009_attempts"),
            (10, "sourced", "0010_sourced"),
            (11, "chain head", "0011_chain_head"),
            (12, "subject key", "0012_subject_key"),
            (13, "process", "0013_process"),
            (14, "projection snapshot", "0014_projection_snapshot"),
            (16, "process parked", "0016_process_parked"),
            (18, "sourced type", "0018_sourced_type"),
            (19, "snapshot event", "0019_snapshot_event"),
        )
    };
    ($database:literal, $(($version:literal, $name:literal, $file:literal)),+ $(,)?) => {
        $crate::backend::migrations::migrator([$((
            $version,
            $name,
            include_str!(concat!("../../../migrations/", $database, "/", $file, ".sql")),
        )),+])
    };
}
pub(super) use migrations;

/// Runs scripts by number, name and SQL.
pub(super) fn migrator<const N: usize>(
    scripts: [(i64, &'static str, &'static str); N],
) -> Migrator {
    let migrations = scripts.into_iter().map(|(version, name, sql)| {
        let sql = sql.into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // A table of its own: the migrations of the application are not ours to know.
    migrator.dangerous_set_table_name("_cqrs_migrations");
    // A newer release has migrated: a rolling deployment, or one that was rolled back.
    migrator.set_ignore_missing(true);
    migrator
}

/// Classifies an error of the migrations; `error` does it for those of the database.
pub(super) fn failed(cause: MigrateError, error: fn(sqlx::Error, &str) -> Error) -> Error {
    match cause {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
            error(cause, DOING)
        }
        cause => Error::Store(
            StoreError::new(
                StoreErrorKind::Schema,
                format!("{DOING}: table _cqrs_migrations is of another version of this crate"),
            )
            .with_source(cause),
        ),
    }
}
