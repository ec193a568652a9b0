//! The migrations of the framework's own tables.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// These migrations, by name and SQL, numbered from 1.
pub(super) fn migrations(scripts: &[(&'static str, &'static str)]) -> Migrator {
    let migrations = (1..).zip(scripts).map(|(version, (name, sql))| {
        Migration::new(
            version,
            (*name).into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // A table of its own: the migrations of the application are not ours to know.
    migrator.dangerous_set_table_name("_cqrs_migrations");
    migrator
}
