//! Read models over the tables of aggregates, as a database would let them read: the columns are
//! found by their names.

use std::borrow::Cow;
use std::sync::Arc;

use super::overlay;
use super::state::{ReadTable, State};
use crate::context::TenantId;
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::{Column, ColumnRole, Key, Table, Value, ValueRow};

impl State {
    /// The rows of a read model's table: those that projections wrote, else those of aggregates.
    ///
    /// # Errors
    ///
    /// `Schema` where the table of the aggregates lacks a column.
    pub(super) fn read_table(&self, table: &Table) -> Result<Cow<'_, ReadTable>> {
        if let Some(rows) = self.read_tables.get(table.name()) {
            return Ok(Cow::Borrowed(rows));
        }
        let Some(source) = self.schemas.get(table.name()) else {
            return Ok(Cow::Owned(ReadTable::new()));
        };
        let columns = table
            .columns()
            .iter()
            .map(|column| find(source, column))
            .collect::<Result<Vec<_>>>()?;
        Ok(Cow::Owned(
            self.rows_of(source)
                .map(|row| columns.iter().map(|at| row.values()[*at].clone()).collect())
                .map(|row| (place(table, &row), Arc::new(ValueRow::new(row))))
                .collect(),
        ))
    }

    /// The rows of a table of aggregates, or of children.
    fn rows_of(&self, table: &'static Table) -> Box<dyn Iterator<Item = &ValueRow> + '_> {
        let Some((parent, _)) = table.parent() else {
            return Box::new(self.rows(table.name()).map(|(_, row)| &**row));
        };
        let siblings = self.schemas.get(parent).map(|parent| parent.children());
        let index = siblings
            .unwrap_or_default()
            .iter()
            .position(|sibling| sibling.name() == table.name());
        Box::new(index.into_iter().flat_map(move |index| {
            self.rows(parent)
                .flat_map(move |(_, row)| row.children(index))
        }))
    }
}

fn find(source: &Table, column: &Column) -> Result<usize> {
    source.index_of_name(column.name()).ok_or_else(|| {
        Error::store(
            StoreErrorKind::Schema,
            format!("table {} has no column {}", source.name(), column.name()),
        )
    })
}

fn place(table: &Table, row: &Vec<Value>) -> (Option<TenantId>, Key) {
    let tenant = overlay::tenant(table, row).and_then(|tenant| TenantId::new(tenant).ok());
    let key = table
        .columns()
        .iter()
        .zip(row)
        .filter(|(column, _)| column.role() == ColumnRole::Key)
        .map(|(_, value)| value.clone())
        .collect();
    (tenant, Key::new(key))
}
