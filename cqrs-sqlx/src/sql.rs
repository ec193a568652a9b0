//! SQL of finders: from a statement with its arguments to rows.

use std::sync::OnceLock;

use chrono::{DateTime, NaiveDate, Utc};
use cqrs_core::mapping::{Column, ColumnError, ColumnRole, MappingError, RowSource};
use cqrs_core::sql::{Argument, Arguments, Columns, SqlRow, Statement};
use cqrs_core::{Error, Result, StoreErrorKind, TenantScope};
use uuid::Uuid;

use crate::backend::{Backend, Dialect, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;

/// A statement with what is bound to it.
pub(crate) fn select(
    arguments: Arguments,
    scope: &TenantScope,
    dialect: &Dialect,
) -> Result<Select> {
    let statement = arguments.statement();
    let tenant = statement.tenant(scope)?;
    let sql = statement.text(dialect.name)?;
    let types = statement.parameters.iter().map(|known| known.column_type);
    let parameters = types
        .zip(arguments.into_arguments())
        .map(|(column_type, argument)| match argument {
            Argument::One(value) => Parameter::Typed(column_type, value),
            Argument::List(values) => Parameter::List(column_type, values),
        })
        .chain(tenant.map(Parameter::text))
        .collect();
    Ok(Select {
        sql: sql.into(),
        parameters,
    })
}

/// The rows of a statement, decoded as they arrive.
pub(crate) async fn rows<B: Backend, T: SqlRow>(
    place: Place<'_, B>,
    statement: &'static Statement,
    select: &Select,
    scope: &TenantScope,
) -> Result<Vec<T>> {
    let columns = T::columns();
    // Where the columns are is found out with the first row.
    let places = OnceLock::new();
    let rows = reads::rows(place, select, None, |row: &B::Row| {
        let places = match places.get() {
            Some(places) => places,
            None => {
                let found = find_columns::<B>(&columns, row, statement)?;
                places.get_or_init(|| found)
            }
        };
        let row = Placed { row, places };
        let of_finder = |cause: MappingError| MappingError {
            table: statement.to_string(),
            ..cause
        };
        if is_removed(&columns, &row).map_err(of_finder)? {
            return Ok(None);
        }
        check_tenant(&columns, &row, statement, scope)?;
        T::read(&row)
            .map(Some)
            .map_err(of_finder)
            .map_err(Error::from)
    })
    .await?;
    Ok(rows.into_iter().flatten().collect())
}

/// Where the columns are in a result.
fn find_columns<B: Backend>(
    columns: &Columns,
    row: &B::Row,
    statement: &Statement,
) -> Result<Vec<usize>> {
    let found = B::result_columns(row);
    let names: Vec<&str> = found.iter().map(|column| column.name.as_str()).collect();
    let mut wrong = Vec::new();
    match columns.places(&names) {
        Ok(places) => {
            for (column, place) in columns.columns().iter().zip(&places) {
                let (expected, found) = (column.column_type(), &found[*place].type_name);
                if !B::can_decode(expected, found) {
                    let name = column.name();
                    wrong.push(format!("column {name}: expected {expected}, found {found}"));
                }
            }
            if wrong.is_empty() {
                return Ok(places);
            }
        }
        Err(lines) => wrong = lines,
    }
    let message = format!("{statement}: {}", wrong.join("; "));
    Err(Error::store(StoreErrorKind::Schema, message))
}

fn place_of(columns: &Columns, role: ColumnRole) -> Option<usize> {
    let mut roles = columns.columns().iter().map(Column::role);
    roles.position(|found| found == role)
}

/// Whether the row is that of a removed aggregate: it does not exist, for a statement either.
fn is_removed<R: RowSource>(columns: &Columns, row: &R) -> std::result::Result<bool, MappingError> {
    let Some(place) = place_of(columns, ColumnRole::DeletedAt) else {
        return Ok(false);
    };
    let deleted = row.read_timestamp(place).map_err(|reason| MappingError {
        table: String::new(),
        column: columns.columns()[place].name().to_owned(),
        reason,
    })?;
    Ok(deleted.is_some())
}

/// A statement that mentions its tenant may still read another's rows. Where those say whose they
/// are, they go no further.
fn check_tenant<R: RowSource>(
    columns: &Columns,
    row: &R,
    statement: &Statement,
    scope: &TenantScope,
) -> Result<()> {
    let (Some(place), Some(tenant)) = (place_of(columns, ColumnRole::Tenant), scope.tenant())
    else {
        return Ok(());
    };
    if matches!(row.read_text(place), Ok(Some(owner)) if owner == tenant.as_str()) {
        return Ok(());
    }
    Err(statement.usage(format_args!("has read a row of another tenant")))
}

/// A row whose columns are at other places.
struct Placed<'r, R> {
    row: &'r R,
    places: &'r [usize],
}

type Read<T> = std::result::Result<Option<T>, ColumnError>;

macro_rules! placed {
    ($($name:ident: $type:ty;)*) => {$(
        fn $name(&self, index: usize) -> Read<$type> {
            self.row.$name(self.places[index])
        }
    )*};
}

impl<R: RowSource> RowSource for Placed<'_, R> {
    placed! {
        read_bool: bool;
        read_i16: i16;
        read_i32: i32;
        read_i64: i64;
        read_f32: f32;
        read_f64: f64;
        read_text: &str;
        read_bytes: &[u8];
        read_uuid: Uuid;
        read_timestamp: DateTime<Utc>;
        read_date: NaiveDate;
        read_json: &str;
    }
}
