//! What SQLite says of a statement.

use std::sync::Arc;

use cqrs_core::Result;
use cqrs_core::mapping::ColumnType;
use sqlx::sqlite::{SqliteColumn, SqliteConnection};
use sqlx::{AssertSqlSafe, Column, Executor, SqlSafeStr, Statement, TypeInfo};

use super::error::error;
use crate::verify::{Prepared, ResultColumn};

pub(super) async fn prepare(connection: &mut SqliteConnection, sql: &Arc<str>) -> Result<Prepared> {
    let sql = AssertSqlSafe(Arc::clone(sql)).into_sql_str();
    let statement = connection
        .prepare(sql)
        .await
        .map_err(|cause| error(cause, "preparing a statement"))?;
    let parameters = statement
        .parameters()
        .and_then(sqlx::Either::right)
        .unwrap_or_default();
    Ok(Prepared {
        parameters: vec![None; parameters],
        columns: columns(statement.columns()),
    })
}

/// The columns of a result. Those that are no columns of a table have the type `NULL`, and so have
/// those whose declared type the driver does not know.
pub(super) fn columns(columns: &[SqliteColumn]) -> Vec<ResultColumn> {
    let columns = columns.iter().map(|column| ResultColumn {
        name: column.name().to_owned(),
        type_name: column.type_info().name().to_owned(),
    });
    columns.collect()
}

/// Whether what a column of this type holds may be read as a type. Each value is checked again when
/// it is read.
pub(super) fn can_decode(column_type: ColumnType, type_name: &str) -> bool {
    match type_name {
        "INTEGER" | "BOOLEAN" => matches!(
            column_type,
            ColumnType::Bool
                | ColumnType::Int16
                | ColumnType::Int32
                | ColumnType::Int64
                | ColumnType::Float32
                | ColumnType::Float64
        ),
        "REAL" => matches!(column_type, ColumnType::Float32 | ColumnType::Float64),
        "BLOB" => matches!(column_type, ColumnType::Bytes | ColumnType::Uuid),
        "TEXT" => !matches!(
            column_type,
            ColumnType::Bool
                | ColumnType::Int16
                | ColumnType::Int32
                | ColumnType::Int64
                | ColumnType::Float32
                | ColumnType::Float64
                | ColumnType::Bytes
        ),
        "DATE" => column_type == ColumnType::Date,
        "DATETIME" => column_type == ColumnType::Timestamp,
        // Of an expression, or declared in a way that the driver does not know.
        _ => true,
    }
}
