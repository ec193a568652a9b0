//! Records of operations: who did what, and when.

use cqrs_core::mapping::{ColumnType, RowSource as _, Value};
use cqrs_core::{Error, RequestContext, Result};

use super::checkpoint::read;
use crate::backend::{Backend, Parameter};

const ADD: &str = "INSERT INTO cqrs_operation \
                      (operation, subscription, detail, actor, correlation_id) \
                      VALUES ($1, $2, $3, $4, $5)";

/// Records an operation in the transaction that does it.
pub(super) async fn add<B: Backend>(
    connection: &mut B::Connection,
    context: &RequestContext,
    subscription: &str,
    record: (&str, String),
) -> Result<()> {
    let parameters = parameters(context, subscription, record);
    B::execute(connection, &ADD.into(), &parameters)
        .await
        .map(drop)
}

/// As [`add`], for an operation that goes on in other transactions; the id of the record.
pub(crate) async fn begin<B: Backend>(
    connection: &mut B::Connection,
    context: &RequestContext,
    record: (&str, String),
) -> Result<i64> {
    let sql = format!("{ADD} RETURNING id");
    let parameters = parameters(context, "", record);
    let mut id = None;
    B::fetch(connection, &sql.into(), &parameters, None, |row| {
        id = read(row, |row| row.read_i64(0))?;
        Ok(())
    })
    .await?;
    id.ok_or_else(|| Error::other("the database does not say where it has put a record"))
}

/// Has a record say what was done by now; whether it is still there.
pub(crate) async fn correct<B: Backend>(
    connection: &mut B::Connection,
    id: i64,
    detail: String,
) -> Result<bool> {
    let now = B::DIALECT.now;
    let sql = format!("UPDATE cqrs_operation SET detail = $1, done_at = {now} WHERE id = $2");
    let parameters = [Parameter::text(detail), Parameter::int(id)];
    let corrected = B::execute(connection, &sql.into(), &parameters).await?;
    Ok(corrected > 0)
}

fn parameters(
    context: &RequestContext,
    subscription: &str,
    (operation, detail): (&str, String),
) -> [Parameter; 5] {
    let metadata = context.metadata();
    let actor = metadata.actor.clone().map_or(Value::Null, Value::Text);
    [
        Parameter::text(operation),
        Parameter::text(subscription),
        Parameter::text(detail),
        Parameter::new(ColumnType::Text, actor),
        Parameter::new(ColumnType::Uuid, Value::Uuid(metadata.correlation_id)),
    ]
}
