//! What Postgres says of a statement.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use cqrs_core::Result;
use cqrs_core::mapping::ColumnType;
use sqlx::postgres::{PgColumn, PgConnection, PgTypeInfo};
use sqlx::{AssertSqlSafe, Column, Executor, SqlSafeStr, Statement, Type, TypeInfo};
use uuid::Uuid;

use super::bind::Jsonb;
use super::error::error;
use crate::verify::{ParameterType, Prepared, ResultColumn};

pub(super) async fn prepare(
    connection: &mut PgConnection,
    sql: &Arc<str>,
    parameters: &[ParameterType],
) -> Result<Prepared> {
    let sql = AssertSqlSafe(Arc::clone(sql)).into_sql_str();
    let types: Vec<PgTypeInfo> = parameters.iter().copied().map(type_info).collect();
    let statement = connection
        .prepare_with(sql, &types)
        .await
        .map_err(|cause| error(cause, "preparing a statement"))?;
    let parameters = statement.parameters().and_then(|parameters| {
        let types = parameters.left()?;
        Some(types.iter().map(|of| Some(of.name().to_owned())).collect())
    });
    Ok(Prepared {
        parameters: parameters.unwrap_or_default(),
        columns: columns(statement.columns()),
    })
}

/// The columns of a result.
pub(super) fn columns(columns: &[PgColumn]) -> Vec<ResultColumn> {
    let columns = columns.iter().map(|column| ResultColumn {
        name: column.name().to_owned(),
        type_name: column.type_info().name().to_owned(),
    });
    columns.collect()
}

/// Whether the type that a parameter is bound with has this name.
pub(super) fn is_named(parameter: ParameterType, name: &str) -> bool {
    type_info(parameter).name() == name
}

/// The type that a parameter is bound with.
fn type_info((column_type, is_list): ParameterType) -> PgTypeInfo {
    fn of<T: Type<sqlx::Postgres>, L: Type<sqlx::Postgres>>(is_list: bool) -> PgTypeInfo {
        if is_list {
            L::type_info()
        } else {
            T::type_info()
        }
    }
    match column_type {
        ColumnType::Bool => of::<bool, Vec<bool>>(is_list),
        ColumnType::Int16 => of::<i16, Vec<i16>>(is_list),
        ColumnType::Int32 => of::<i32, Vec<i32>>(is_list),
        ColumnType::Int64 => of::<i64, Vec<i64>>(is_list),
        ColumnType::Float32 => of::<f32, Vec<f32>>(is_list),
        ColumnType::Float64 => of::<f64, Vec<f64>>(is_list),
        ColumnType::Bytes => of::<Vec<u8>, Vec<Vec<u8>>>(is_list),
        ColumnType::Uuid => of::<Uuid, Vec<Uuid>>(is_list),
        ColumnType::Timestamp => of::<DateTime<Utc>, Vec<DateTime<Utc>>>(is_list),
        ColumnType::Date => of::<NaiveDate, Vec<NaiveDate>>(is_list),
        ColumnType::Json => of::<Jsonb<'_>, Vec<String>>(is_list),
        _ => of::<String, Vec<String>>(is_list),
    }
}
