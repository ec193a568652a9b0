//! The receipts of commits that carried an idempotency key.

use chrono::{DateTime, Utc};
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::{
    ContentHash, Error, IdempotencyKey, Inbox, Position, RecordedReceipt, Result, StoreErrorKind,
    TenantScope,
};
use uuid::Uuid;

use crate::backend::{Backend, Parameter, Written};
use crate::select::Select;
use crate::store::Shared;
use crate::tenancy::{self, TenantSite};

/// The columns in the order in which [`insert`] binds them.
pub(crate) const RECEIPT_COLUMNS: &str =
    "scope, idempotency_key, fingerprint, output, events, position, recorded_at";

/// No tenant has this name.
fn scope_name(scope: &TenantScope) -> &str {
    scope.tenant().map_or("", cqrs_core::TenantId::as_str)
}

/// The receipt under a key, for [`read`].
pub(crate) fn select(scope: &TenantScope, key: &IdempotencyKey) -> Select {
    let scoped = tenancy::equals(TenantSite::Receipt, "scope", "$1");
    Select {
        sql: format!(
            "SELECT fingerprint, output, events, position FROM cqrs_receipt \
             WHERE {scoped} AND idempotency_key = $2"
        )
        .into(),
        parameters: vec![
            Parameter::text(scope_name(scope)),
            Parameter::text(key.as_str()),
        ],
    }
}

/// Reads what [`select`] finds.
pub(crate) fn read<R: RowSource>(row: &R) -> Result<RecordedReceipt> {
    receipt(row).map_err(|cause| {
        Error::store(
            StoreErrorKind::Schema,
            format!("table cqrs_receipt: {cause}"),
        )
    })
}

fn receipt<R: RowSource>(row: &R) -> Result<RecordedReceipt, ColumnError> {
    let fingerprint = row
        .read_bytes(0)?
        .map(ContentHash::from_bytes)
        .transpose()
        .map_err(ColumnError::invalid)?;
    let text = |index| row.read_text(index)?.ok_or(ColumnError::UnexpectedNull);
    let events = text(2)?
        .split_terminator(',')
        .map(|id| Uuid::parse_str(id).map_err(ColumnError::invalid))
        .collect::<Result<_, _>>()?;
    Ok(RecordedReceipt {
        fingerprint,
        output: text(1)?.to_owned(),
        events,
        position: row.read_i64(3)?.map(Position),
    })
}

/// Records what a commit is about to have written. Waits for another that records the same key
/// and is not committed yet.
///
/// # Errors
///
/// [`IdempotencyKey::taken`]; the transaction is still good then.
pub(crate) async fn insert<B: Backend>(
    connection: &mut B::Connection,
    scope: &TenantScope,
    key: &IdempotencyKey,
    output: String,
    written: &Written,
) -> Result<()> {
    let fingerprint = key
        .fingerprint()
        .map_or(Value::Null, |hash| Value::Bytes(hash.to_bytes()));
    let position = written
        .position
        .map_or(Value::Null, |position| Value::Int(position.0));
    let events: Vec<String> = written.events.iter().map(Uuid::to_string).collect();
    let sql = format!(
        "INSERT INTO cqrs_receipt ({RECEIPT_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, {}) \
         ON CONFLICT DO NOTHING",
        B::DIALECT.now
    );
    let parameters = [
        Parameter::text(scope_name(scope)),
        Parameter::text(key.as_str()),
        Parameter::new(ColumnType::Bytes, fingerprint),
        Parameter::text(output),
        Parameter::text(events.join(",")),
        Parameter::new(ColumnType::Int64, position),
    ];
    match B::execute(connection, &sql.into(), &parameters).await? {
        0 => Err(key.taken()),
        _ => Ok(()),
    }
}

/// Forgets the receipts recorded before a time, but not those of messages; how many there were.
pub(crate) async fn delete<B: Backend>(shared: &Shared<B>, before: DateTime<Utc>) -> Result<u64> {
    let sql = "DELETE FROM cqrs_receipt WHERE recorded_at < $1 \
               AND NOT (idempotency_key >= $2 AND idempotency_key < $3)"
        .into();
    let before = Parameter::new(ColumnType::Timestamp, Value::Timestamp(before));
    let [from, to] = range_of(IdempotencyKey::INBOX);
    crate::projector::execute(shared, &sql, &[before, from, to]).await
}

/// Forgets the messages of an inbox that were processed before a time, in all tenants; how many
/// there were.
pub(crate) async fn delete_messages<B: Backend>(
    shared: &Shared<B>,
    inbox: &Inbox,
    before: DateTime<Utc>,
) -> Result<u64> {
    let sql = "DELETE FROM cqrs_receipt WHERE recorded_at < $1 \
               AND idempotency_key >= $2 AND idempotency_key < $3"
        .into();
    let before = Parameter::new(ColumnType::Timestamp, Value::Timestamp(before));
    let [from, to] = range_of(&inbox.key_prefix());
    crate::projector::execute(shared, &sql, &[before, from, to]).await
}

/// The keys that begin with a prefix, which ends with `/`: up to the one that ends with the next
/// character. The column compares by bytes.
fn range_of(prefix: &str) -> [Parameter; 2] {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    [Parameter::text(prefix), Parameter::text(end)]
}
