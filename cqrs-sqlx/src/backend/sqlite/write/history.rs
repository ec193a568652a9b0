//! Keeping revisions of aggregates that have a history. A read costs no round trip here, so the row
//! is read as it is stored.

use cqrs_core::history::{Image, StoredRevision};
use cqrs_core::mapping::{
    Column, ColumnRole, ColumnType, MappingError, Table, Value, ValueRow, read_value,
};
use cqrs_core::{Error, Result, TenantId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;

use super::super::bind;
use super::super::error::error;
use super::super::row::SqliteSource;
use super::{compared, integer};
use crate::backend::bind::{bind, query};
use crate::history::KEPT_COLUMNS;
use crate::statements::{Statements, list, qualified, quoted};
use crate::tenancy::{self, TenantSite};

/// The image of the row with a key, where its table has a history.
pub(in super::super) async fn image(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &'static Table,
    key: &Value,
) -> Result<Option<Image>> {
    let key_column = table.key_columns().next();
    let Some(key_column) = key_column.filter(|_| table.keeps_history()) else {
        return Ok(None);
    };
    let sql = statements.get(table, "row to keep", || {
        format!("{} = $1", select(table, key_column))
    });
    let key = (key_column.column_type(), key);
    let row = read(connection, &sql, table, &[key]).await?.pop();
    let Some(row) = row else { return Ok(None) };
    let tenant = table.index_of(ColumnRole::Tenant).map(|index| &row[index]);
    let mut children = Vec::new();
    for child in table.children() {
        let Some(parent) = child.column_with(ColumnRole::Parent) else {
            continue;
        };
        let sql = statements.get(child, "children to keep", || children_sql(child, parent));
        let mut parameters = vec![key];
        parameters.extend(tenant.map(|tenant| (ColumnType::Text, tenant)));
        let rows = read(connection, &sql, child, &parameters).await?;
        children.push(rows.into_iter().map(ValueRow::new).collect());
    }
    Ok(Some(Image::of(
        table,
        &ValueRow::with_children(row, children),
    )))
}

fn select(table: &Table, by: &Column) -> String {
    let columns = table.columns().iter();
    format!(
        "SELECT {} FROM {} WHERE {}",
        list(columns.map(|column| qualified(table, column.name()))),
        quoted(table.name()),
        compared(table, by),
    )
}

fn children_sql(child: &Table, parent: &Column) -> String {
    let tenant = child.column_with(ColumnRole::Tenant).map(|tenant| {
        let name = compared(child, tenant);
        let own = tenancy::equals(TenantSite::HistoryChildren, &name, "$2");
        format!(" AND {own}")
    });
    let place = child.column_with(ColumnRole::Order);
    let place = place.map(|place| format!(" ORDER BY {}", qualified(child, place.name())));
    format!(
        "{} = $1{}{}",
        select(child, parent),
        tenant.unwrap_or_default(),
        place.unwrap_or_default(),
    )
}

async fn read(
    connection: &mut SqliteConnection,
    sql: &std::sync::Arc<str>,
    table: &'static Table,
    parameters: &[(ColumnType, &Value)],
) -> Result<Vec<Vec<Value>>> {
    let mut arguments = SqliteArguments::default();
    for (column_type, value) in parameters {
        bind::add(&mut arguments, *column_type, value)?;
    }
    let rows = query(sql, arguments)
        .fetch_all(connection)
        .await
        .map_err(|cause| error(cause, "reading what is kept in the history"))?;
    let values = rows.into_iter().map(|row| {
        let row = SqliteSource(row);
        let columns = table.columns().iter().enumerate();
        let values = columns.map(|(index, column)| {
            read_value(&row, index, column.column_type()).map_err(|reason| MappingError {
                table: table.name().to_owned(),
                column: column.name().to_owned(),
                reason,
            })
        });
        Ok(values.collect::<std::result::Result<Vec<_>, _>>()?)
    });
    values.collect()
}

/// Keeps a revision; `refused` is the error where that fails.
pub(in super::super) async fn keep(
    connection: &mut SqliteConnection,
    (aggregate_type, aggregate_id): (&str, &str),
    revision: &StoredRevision,
    refused: impl FnOnce(sqlx::Error) -> Error,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO cqrs_history ({KEPT_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    );
    let tenant = revision.tenant.as_ref().map(TenantId::as_str);
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, tenant)?;
    bind(&mut arguments, aggregate_type)?;
    bind(&mut arguments, aggregate_id)?;
    bind(&mut arguments, integer(revision.version))?;
    bind(&mut arguments, revision.kind.name())?;
    bind(&mut arguments, revision.image.state.as_str())?;
    bind(&mut arguments, revision.image.children.as_deref())?;
    bind(&mut arguments, revision.actor.as_deref())?;
    bind(&mut arguments, revision.correlation_id)?;
    bind(&mut arguments, bind::timestamp(revision.changed_at))?;
    query(&sql.into(), arguments)
        .execute(connection)
        .await
        .map(drop)
        .map_err(refused)
}
