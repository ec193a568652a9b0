//! Reading: within a transaction, or on a connection of its own.

use std::sync::Arc;

use cqrs_core::mapping::{
    Column, ColumnType, Loading, MappingError, RowCursor, RowSource, Table, Value, read_value,
};
use cqrs_core::{
    Entity, Envelope, Error, LogSlice, Page, Position, RawPayload, Result, StoreErrorKind,
    TenantId, TenantScope,
};

use crate::backend::{Backend, Parameter, Parameters};
use crate::connections::{Connect, Connection};
use crate::log::{self, EVENT_COLUMNS};
use crate::select::{Found, Layout, PageSelect, Select};
use crate::statements::list;
use crate::store::Shared;
use crate::tenancy::{self, TenantSite};

/// Where a read takes place.
pub(crate) enum Place<'c, B: Backend> {
    /// In an open transaction.
    Transaction(&'c mut Connection<B>),
    /// Outside of any.
    Alone(&'c Arc<Shared<B>>),
    /// Outside of any, where rows belong to tenants.
    Confined(&'c Arc<Shared<B>>, &'c TenantScope),
}

impl<B: Backend> Place<'_, B> {
    /// The same place, for one read before another.
    pub(crate) fn again(&mut self) -> Place<'_, B> {
        match self {
            Self::Transaction(connection) => Place::Transaction(connection),
            Self::Alone(shared) => Place::Alone(shared),
            Self::Confined(shared, scope) => Place::Confined(shared, scope),
        }
    }
}

/// The entities that a select finds, decoded as they arrive.
pub(crate) async fn entities<B: Backend, T: Entity>(
    place: Place<'_, B>,
    select: &Select,
) -> Result<Vec<T>> {
    let table = T::table();
    if table.children().is_empty() {
        let read = |row: &B::Row| T::read_row(&mut RowCursor::new(table, row)).map_err(Error::from);
        return rows(place, select, Some(table), read).await;
    }
    let layout = Layout::of(table);
    let found = fold(
        place,
        select,
        Some(table),
        |found: &mut Found<_, _>, row| layout.read(found, row, || Ok(())),
    )
    .await?;
    let finish = |(entity, ()): (Loading<T>, ())| entity.finish().map_err(Error::from);
    found.entities.into_iter().map(finish).collect()
}

/// The page that a select reads.
pub(crate) async fn page<B: Backend, T: Entity>(
    mut place: Place<'_, B>,
    select: &PageSelect,
) -> Result<Page<T>> {
    let table = T::table();
    let paging = &select.paging;
    let read = |found: &mut Found<_, _>, row: &B::Row| {
        select.layout.read(found, row, || {
            let keys = paging.keys().iter().map(|key| {
                let column = &table.columns()[key.index];
                read_value(row, key.index, column.column_type()).map_err(|reason| MappingError {
                    table: table.name().to_owned(),
                    column: column.name().to_owned(),
                    reason,
                })
            });
            let keys = keys.collect::<Result<Vec<Value>, _>>()?;
            let total = match &select.count {
                Some(_) => row.read_i64(select.layout.total).map_err(Error::other)?,
                None => None,
            };
            Ok((keys, total))
        })
    };
    let found = fold(place.again(), &select.rows, Some(table), read)
        .await?
        .entities;
    let total = match (&select.count, found.first()) {
        (None, _) => None,
        (Some(_), Some((_, (_, total)))) => total.and_then(|total| u64::try_from(total).ok()),
        // Behind the last row there is none that could carry the total.
        (Some(select), None) => Some(count(place, select).await?),
    };
    let finish = |(entity, (keys, _)): (Loading<T>, _)| Ok((entity.finish()?, keys));
    let items = found.into_iter().map(finish).collect::<Result<_>>()?;
    Ok(paging.page(items, total))
}

/// The number that a select counts.
pub(crate) async fn count<B: Backend>(place: Place<'_, B>, select: &Select) -> Result<u64> {
    let counts = rows(place, select, None, |row: &B::Row| {
        let count = row.read_i64(0).map_err(Error::other)?.unwrap_or(0);
        Ok(u64::try_from(count).unwrap_or(0))
    })
    .await?;
    Ok(counts.into_iter().sum())
}

/// Whether a select finds anything.
pub(crate) async fn exists<B: Backend>(place: Place<'_, B>, select: &Select) -> Result<bool> {
    let found = rows(place, select, None, |row: &B::Row| {
        row.read_bool(0).map_err(Error::other)
    })
    .await?;
    Ok(found.contains(&Some(true)))
}

/// The keys that a select finds, in its first column.
pub(crate) async fn keys<B: Backend, T: Entity>(
    place: Place<'_, B>,
    select: &Select,
) -> Result<Vec<Value>> {
    let column_type = T::table().key_columns().next().map(Column::column_type);
    let column_type = column_type.unwrap_or(ColumnType::Text);
    rows(place, select, None, |row: &B::Row| {
        read_value(row, 0, column_type)
            .map_err(|reason| Error::Mapping(T::table().key_error(reason)))
    })
    .await
}

/// What each row reads as.
pub(crate) async fn rows<B: Backend, T: Send>(
    place: Place<'_, B>,
    select: &Select,
    table: Option<&'static Table>,
    read: impl Fn(&B::Row) -> Result<T> + Send + Sync,
) -> Result<Vec<T>> {
    fold(place, select, table, |found: &mut Vec<T>, row| {
        found.push(read(row)?);
        Ok(())
    })
    .await
}

/// What all rows together read as. `read` gets each row with what was read before it.
///
/// Outside of a transaction an idle connection may have died unnoticed. The read is then repeated
/// on a new one, since nothing depends on it yet.
pub(crate) async fn fold<B: Backend, S: Default + Send>(
    place: Place<'_, B>,
    select: &Select,
    table: Option<&'static Table>,
    read: impl Fn(&mut S, &B::Row) -> Result<()> + Send + Sync,
) -> Result<S> {
    let (shared, scope) = match place {
        Place::Transaction(connection) => {
            return collect::<B, S>(connection.get(), select, table, &read).await;
        }
        Place::Alone(shared) => (shared, None),
        Place::Confined(shared, scope) => (shared, Some(scope)),
    };
    let scope = scope.filter(|_| shared.row_level_security);
    let mut repeated = false;
    loop {
        let mut connection = shared.readers.acquire().await?;
        let result = match scope {
            None => collect::<B, S>(connection.begin_work(), select, table, &read).await,
            Some(scope) => {
                confined::<B, S>(connection.begin_work(), scope, select, table, &read).await
            }
        };
        match result {
            Err(error) if is_unavailable(&error) => {
                connection.discard();
                shared.readers.close_idle();
                if repeated {
                    return Err(error);
                }
                repeated = true;
            }
            result => {
                connection.end_work();
                return result;
            }
        }
    }
}

/// In a transaction of its own, which tells the policies of the database whose rows are meant.
async fn confined<B: Backend, S: Default + Send>(
    connection: &mut <B as Connect>::Connection,
    scope: &TenantScope,
    select: &Select,
    table: Option<&'static Table>,
    read: &(impl Fn(&mut S, &B::Row) -> Result<()> + Send + Sync),
) -> Result<S> {
    B::begin_reading(connection).await?;
    let found = match B::confine(connection, scope).await {
        Ok(()) => collect::<B, S>(connection, select, table, read).await,
        Err(error) => Err(error),
    };
    let ended = B::rollback(connection).await;
    let found = found?;
    ended.map(|()| found)
}

async fn collect<B: Backend, S: Default + Send>(
    connection: &mut <B as Connect>::Connection,
    select: &Select,
    table: Option<&'static Table>,
    read: &(impl Fn(&mut S, &B::Row) -> Result<()> + Send + Sync),
) -> Result<S> {
    let mut found = S::default();
    B::fetch(connection, &select.sql, &select.parameters, table, |row| {
        read(&mut found, row)
    })
    .await?;
    Ok(found)
}

/// Whether the connection broke.
pub(crate) fn is_unavailable(error: &Error) -> bool {
    matches!(error, Error::Store(error) if *error.kind() == StoreErrorKind::Unavailable)
}

/// Events of the log after a position, in its order, within a tenant scope.
pub(crate) async fn events<B: Backend>(
    shared: &Arc<Shared<B>>,
    scope: &TenantScope,
    after: Position,
    limit: u32,
) -> Result<Vec<Envelope<RawPayload>>> {
    let mut parameters = vec![Parameter::int(after.0), Parameter::int(limit.into())];
    let mut tenant = String::new();
    if let Some(id) = scope.tenant() {
        let condition = tenancy::equals(TenantSite::Log, "tenant_id", "$3");
        tenant = format!("AND {condition} ");
        parameters.push(Parameter::text(id.as_str()));
    }
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM cqrs_event WHERE position > $1 {tenant}\
         ORDER BY position LIMIT $2"
    );
    let select = Select {
        sql: sql.into(),
        parameters,
    };
    let place = Place::Confined(shared, scope);
    let read = |row: &B::Row| log::read_verified(&shared.hashing, row);
    rows(place, &select, None, read).await
}

/// Hands the events of a part of the log to `each` as they arrive, within a tenant scope. Those that
/// belong to no tenant are everyone's.
pub(crate) async fn scan<B: Backend>(
    shared: &Arc<Shared<B>>,
    scope: &TenantScope,
    slice: &LogSlice,
    mut each: impl FnMut(Envelope<RawPayload>) -> Result<()> + Send,
) -> Result<()> {
    let select = log_slice(slice, scope.tenant());
    let mut begun = false;
    loop {
        let mut connection = shared.readers.acquire().await?;
        let result = async {
            let connection = connection.begin_work();
            shared.begin_confined(connection, scope).await?;
            B::fetch(connection, &select.sql, &select.parameters, None, |row| {
                begun = true;
                each(log::read_verified(&shared.hashing, row)?)
            })
            .await?;
            shared.end_confined(connection).await
        };
        match result.await {
            Ok(()) => {
                connection.end_work();
                return Ok(());
            }
            // An idle connection may have died unnoticed.
            Err(error) if is_unavailable(&error) => {
                connection.discard();
                shared.readers.close_idle();
                if std::mem::replace(&mut begun, true) {
                    return Err(error);
                }
            }
            // The rest of the rows may still be on the way: it is repaired or closed.
            Err(error) => return Err(error),
        }
    }
}

fn log_slice(slice: &LogSlice, tenant: Option<&TenantId>) -> Select {
    let mut parameters = Parameters::default();
    let mut conditions = Vec::new();
    if let Some(types) = &slice.aggregate_types {
        let types = types
            .iter()
            .map(|name| parameters.add(Parameter::text(*name)));
        let types = list(types);
        conditions.push(match types.as_str() {
            "" => "1 = 0".to_owned(),
            types => format!("aggregate_type IN ({types})"),
        });
    }
    if let Some(id) = &slice.aggregate_id {
        let id = parameters.add(Parameter::text(id));
        conditions.push(format!("aggregate_id = {id}"));
    }
    if let Some(tenant) = tenant {
        let tenant = parameters.add(Parameter::text(tenant.as_str()));
        let own = tenancy::equals(TenantSite::LiveLog, "tenant_id", &tenant);
        conditions.push(format!("({own} OR tenant_id IS NULL)"));
    }
    let conditions = if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    };
    Select {
        sql: format!("SELECT {EVENT_COLUMNS} FROM cqrs_event{conditions} ORDER BY position").into(),
        parameters: parameters.0,
    }
}
