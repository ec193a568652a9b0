//! Revisions of aggregates that have a history: reading them, and removing old ones.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_core::history::{Forgotten, Image, RevisionKind, StoredRevision, VersionPaging};
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::{AggregateRoot, AsOf, Error, Result, StoreErrorKind, TenantId, TenantScope};

use crate::backend::{Backend, Parameter, Parameters};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;
use crate::tenancy::{self, TenantSite};
use crate::unit_of_work::Transaction;

/// The columns of the table of revisions, as they are written.
pub(crate) const KEPT_COLUMNS: &str = "tenant_id, aggregate_type, aggregate_id, version, kind, \
     state, children, actor, correlation_id, changed_at";

/// What is read of a revision.
const COLUMNS: &str = "h.version, h.kind, h.tenant_id, h.actor, h.correlation_id, h.changed_at, \
     CAST(h.state AS text), CAST(h.children AS text)";

/// Reads a revision from a row with [`COLUMNS`].
pub(crate) fn read_revision<R: RowSource>(row: &R) -> Result<StoredRevision> {
    read(row).map_err(|error| {
        Error::store(
            StoreErrorKind::Schema,
            format!("table cqrs_history: {error}"),
        )
    })
}

fn read<R: RowSource>(row: &R) -> Result<StoredRevision, ColumnError> {
    fn some<T>(value: Option<T>) -> Result<T, ColumnError> {
        value.ok_or(ColumnError::UnexpectedNull)
    }
    let owned = |index| Ok::<_, ColumnError>(row.read_text(index)?.map(str::to_owned));
    let tenant = row.read_text(2)?.map(TenantId::new).transpose();
    let kind: Result<RevisionKind> = some(row.read_text(1)?)?.parse();
    Ok(StoredRevision {
        version: u64::try_from(some(row.read_i64(0)?)?).map_err(ColumnError::invalid)?,
        kind: kind.map_err(ColumnError::invalid)?,
        tenant: tenant.map_err(ColumnError::invalid)?,
        actor: owned(3)?,
        correlation_id: some(row.read_uuid(4)?)?,
        changed_at: some(row.read_timestamp(5)?)?,
        image: Image {
            state: some(owned(6)?)?,
            children: owned(7)?,
        },
    })
}

/// The condition of the revisions of an aggregate within a scope.
fn of<A: AggregateRoot>(
    site: TenantSite,
    scope: &TenantScope,
    id: &A::Id,
    parameters: &mut Parameters,
) -> String {
    let kind = parameters.add(Parameter::text(A::TYPE));
    let id = parameters.add(Parameter::text(id.to_string()));
    let own = own::<A>(site, scope, parameters);
    format!("h.aggregate_type = {kind} AND h.aggregate_id = {id}{own}")
}

fn own<A: AggregateRoot>(
    site: TenantSite,
    scope: &TenantScope,
    parameters: &mut Parameters,
) -> String {
    let Some(tenant) = scope.tenant().filter(|_| A::table().is_tenant()) else {
        return String::new();
    };
    let tenant = parameters.add(Parameter::text(tenant.as_str()));
    format!(" AND {}", tenancy::equals(site, "h.tenant_id", &tenant))
}

/// A page of the revisions of an aggregate, from the youngest on.
pub(crate) fn page<A: AggregateRoot>(
    scope: &TenantScope,
    id: &A::Id,
    paging: &VersionPaging,
) -> Select {
    let mut parameters = Parameters::default();
    let mut condition = of::<A>(TenantSite::History, scope, id, &mut parameters);
    if let Some(before) = paging.before() {
        let before = parameters.add(Parameter::int(integer(before)));
        condition.push_str(&format!(" AND h.version < {before}"));
    }
    let limit = parameters.add(Parameter::int(integer(paging.limit())));
    let skip = parameters.add(Parameter::int(integer(paging.skip())));
    Select {
        sql: format!(
            "SELECT {COLUMNS} FROM cqrs_history AS h WHERE {condition} \
             ORDER BY h.version DESC LIMIT {limit} OFFSET {skip}"
        )
        .into(),
        parameters: parameters.0,
    }
}

/// How many revisions an aggregate has.
pub(crate) fn count<A: AggregateRoot>(scope: &TenantScope, id: &A::Id) -> Select {
    let mut parameters = Parameters::default();
    let condition = of::<A>(TenantSite::HistoryTotal, scope, id, &mut parameters);
    Select {
        sql: format!("SELECT count(*) FROM cqrs_history AS h WHERE {condition}").into(),
        parameters: parameters.0,
    }
}

/// The last revision of an aggregate up to then.
pub(crate) fn as_of<A: AggregateRoot>(scope: &TenantScope, id: &A::Id, at: AsOf) -> Select {
    let mut parameters = Parameters::default();
    let condition = of::<A>(TenantSite::HistoryAsOf, scope, id, &mut parameters);
    let until = match at.within_range() {
        AsOf::Time(time) => {
            let time = Parameter::new(ColumnType::Timestamp, Value::Timestamp(time));
            format!("h.changed_at <= {}", parameters.add(time))
        }
        AsOf::Version(version) => {
            let version = Parameter::int(integer(version));
            format!("h.version <= {}", parameters.add(version))
        }
        _ => "1 = 1".to_owned(),
    };
    Select {
        sql: format!(
            "SELECT {COLUMNS} FROM cqrs_history AS h WHERE {condition} AND {until} \
             ORDER BY h.version DESC LIMIT 1"
        )
        .into(),
        parameters: parameters.0,
    }
}

/// The first revision of an aggregate that is kept.
pub(crate) fn first<A: AggregateRoot>(scope: &TenantScope, id: &A::Id) -> Select {
    let mut parameters = Parameters::default();
    let condition = of::<A>(TenantSite::HistoryFirst, scope, id, &mut parameters);
    Select {
        sql: format!(
            "SELECT {COLUMNS} FROM cqrs_history AS h WHERE {condition} ORDER BY h.version LIMIT 1"
        )
        .into(),
        parameters: parameters.0,
    }
}

/// Removes the next revisions that nothing needs: all that are older than a time, except the last
/// before it of each aggregate whose row is still there. The end of one that is not goes last: by
/// clocks that differ, a revision before it may be younger.
pub(crate) async fn forget<B: Backend, A: AggregateRoot>(
    shared: &Arc<Shared<B>>,
    before: DateTime<Utc>,
    after: Option<&(String, u64)>,
    scope: &TenantScope,
    most: u32,
) -> Result<Forgotten> {
    let mut parameters = Parameters::default();
    let goes = goes::<A>(before, after, scope, &mut parameters);
    let mut removal = Parameters(parameters.0.clone());
    let limit = parameters.add(Parameter::int(most.into()));
    let select = Select {
        sql: format!(
            "SELECT h.aggregate_id, h.version FROM cqrs_history AS h WHERE {goes} \
             ORDER BY h.aggregate_id, h.version LIMIT {limit}"
        )
        .into(),
        parameters: parameters.0,
    };
    let mut transaction = Transaction::begin(shared, scope).await?;
    let forgotten = async {
        let place = Place::Transaction(transaction.connection());
        let mut found = reads::rows(place, &select, None, read_place).await?;
        let Some(last) = found.pop() else {
            return Ok(Forgotten::default());
        };
        let id = removal.add(Parameter::text(last.0.as_str()));
        let version = removal.add(Parameter::int(integer(last.1)));
        let sql = format!(
            "DELETE FROM cqrs_history AS h WHERE {goes} \
             AND (h.aggregate_id, h.version) <= ({id}, {version})"
        );
        let connection = transaction.connection().get();
        B::execute(connection, &sql.into(), &removal.0).await?;
        let rows = found.len() + 1;
        let is_full = rows as u64 == u64::from(most);
        Ok(Forgotten {
            rows,
            last: Some(last).filter(|_| is_full),
        })
    };
    match forgotten.await {
        Ok(forgotten) => {
            transaction.commit(shared).await?;
            Ok(forgotten)
        }
        Err(cause) => Err(transaction.after_failure(shared, cause).await.1),
    }
}

fn read_place<R: RowSource>(row: &R) -> Result<(String, u64)> {
    let id = row.read_text(0).map_err(Error::other)?;
    let version = row.read_i64(1).map_err(Error::other)?;
    let version = version.and_then(|version| u64::try_from(version).ok());
    Ok((id.unwrap_or_default().to_owned(), version.unwrap_or(0)))
}

fn goes<A: AggregateRoot>(
    before: DateTime<Utc>,
    after: Option<&(String, u64)>,
    scope: &TenantScope,
    parameters: &mut Parameters,
) -> String {
    let kind = parameters.add(Parameter::text(A::TYPE));
    let time = Parameter::new(ColumnType::Timestamp, Value::Timestamp(before));
    let time = parameters.add(time);
    let own = own::<A>(TenantSite::HistoryRetention, scope, parameters);
    let after = after.map(|(id, version)| {
        let id = parameters.add(Parameter::text(id.as_str()));
        let version = parameters.add(Parameter::int(integer(*version)));
        format!(" AND (h.aggregate_id, h.version) > ({id}, {version})")
    });
    let same = "n.aggregate_type = h.aggregate_type AND n.aggregate_id = h.aggregate_id";
    let ends = match A::table().is_soft_delete() {
        true => "'purged'",
        false => "'purged', 'removed'",
    };
    format!(
        "h.aggregate_type = {kind} AND h.changed_at < {time}{own}{} AND (h.kind IN ({ends}) \
         AND NOT EXISTS (SELECT 1 FROM cqrs_history AS n WHERE {same} AND n.version < h.version \
         AND n.changed_at >= {time}) \
         OR EXISTS (SELECT 1 FROM cqrs_history AS n WHERE {same} AND n.version > h.version \
         AND n.changed_at < {time}))",
        after.unwrap_or_default(),
    )
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
