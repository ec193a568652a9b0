//! Checking the SQL of finders against the database.

use std::sync::Arc;

use cqrs_core::Result;
use cqrs_core::mapping::ColumnType;
use cqrs_core::sql::{Statement, Tenants};

use super::refuse;
use crate::backend::{Backed, Backend};
use crate::connections::Connection;
use crate::reads::is_unavailable;

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultColumn {
    /// Its name.
    pub(crate) name: String,
    /// Its type, in the words of the driver.
    pub(crate) type_name: String,
}

/// What the database says of a statement that it was given to prepare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// The types of its parameters, in the words of the driver, where the database tells them.
    pub(crate) parameters: Vec<Option<String>>,
    /// The columns of its rows.
    pub(crate) columns: Vec<ResultColumn>,
}

/// The type of a parameter: that of its values, and whether it is a list of them.
pub(crate) type ParameterType = (ColumnType, bool);

/// Prepares statements and compares what the database says with what the code expects.
pub(crate) async fn verify_sql<B: Backend>(
    connection: &mut Connection<B>,
    statements: &[&'static [Statement]],
) -> Result<()> {
    let mut differences = Vec::new();
    for statement in statements.iter().copied().flatten() {
        let found = verify_one::<B>(connection, statement).await?;
        differences.extend(found.iter().map(|line| format!("{statement}: {line}")));
    }
    refuse("the SQL of finders does not fit the database", differences)
}

async fn verify_one<B: Backend>(
    connection: &mut Connection<B>,
    statement: &'static Statement,
) -> Result<Vec<String>> {
    let sql: Arc<str> = match statement.text(B::DIALECT.name) {
        Ok(sql) => sql.into(),
        Err(error) => return Ok(vec![error.to_string()]),
    };
    let mut types: Vec<ParameterType> = statement
        .parameters
        .iter()
        .map(|known| (known.column_type, known.is_list))
        .collect();
    if statement.tenants == Tenants::One {
        types.push((ColumnType::Text, false));
    }
    let prepared = B::prepare(connection.begin_work(), &sql, &types).await;
    connection.end_work();
    match prepared {
        Ok(prepared) => Ok(compare::<B>(statement, &prepared)),
        Err(error) if is_unavailable(&error) => Err(error),
        Err(error) => {
            let found = parameters::<B>(connection, statement, &sql, &types).await?;
            Ok(match found.is_empty() {
                true => vec![error.to_string()],
                false => found,
            })
        }
    }
}

/// The parameters that the database wants of another type, where it says so when it is told none.
async fn parameters<B: Backend>(
    connection: &mut Connection<B>,
    statement: &Statement,
    sql: &str,
    types: &[ParameterType],
) -> Result<Vec<String>> {
    // Of another text, since the driver keeps statements by that.
    let sql: Arc<str> = format!("{sql} ").into();
    let prepared = B::prepare(connection.begin_work(), &sql, &[]).await;
    connection.end_work();
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) if is_unavailable(&error) => return Err(error),
        Err(_) => return Ok(Vec::new()),
    };
    let names = statement.parameters.iter().map(|known| known.name);
    let wanted = names.chain(["tenant"]).zip(types).zip(prepared.parameters);
    Ok(wanted
        .filter_map(|((name, of), wanted)| {
            let wanted = wanted.filter(|wanted| !B::is_parameter_type(*of, wanted))?;
            let (column_type, is_list) = of;
            let list = if *is_list { "a list of " } else { "" };
            let wanted = wanted.to_lowercase();
            Some(format!(
                "parameter {name}: expected {wanted}, found {list}{column_type}"
            ))
        })
        .collect())
}

fn compare<B: Backed>(statement: &Statement, prepared: &Prepared) -> Vec<String> {
    let mut wrong = Vec::new();
    let (expected, found) = (statement.values(), prepared.parameters.len());
    if expected != found {
        wrong.push(format!("expected {expected} parameters, found {found}"));
    }
    let columns = (statement.columns)();
    let names: Vec<&str> = prepared
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    match columns.places(&names) {
        Err(lines) => wrong.extend(lines),
        Ok(places) => {
            for (column, place) in columns.columns().iter().zip(places) {
                let expected = column.column_type();
                let found = &prepared.columns[place].type_name;
                if !B::can_decode(expected, found) {
                    let (name, found) = (column.name(), found.to_lowercase());
                    wrong.push(format!("column {name}: expected {expected}, found {found}"));
                }
            }
        }
    }
    wrong
}
