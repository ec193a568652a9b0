//! The description of a table, written by a derive and read by every backend.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use super::{Child, ColumnError, ColumnType, ColumnValue, MappingError, Record, ValueObject};

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnRole {
    /// Part of the key.
    Key,
    /// The user's own data.
    Data,
    /// The tenant that owns the row.
    Tenant,
    /// The version for optimistic locking.
    Version,
    /// When the row was created.
    CreatedAt,
    /// Who created the row.
    CreatedBy,
    /// When the row was last changed.
    UpdatedAt,
    /// Who last changed the row.
    UpdatedBy,
    /// When the row was soft-deleted; NULL while it lives.
    DeletedAt,
    /// Who soft-deleted the row.
    DeletedBy,
    /// The link of the last event of a chained aggregate; NULL while it has none.
    ChainHead,
    /// The key of the aggregate that a child belongs to.
    Parent,
    /// The place of a child among its siblings.
    Order,
}

/// Who gives a column its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Filling {
    Code,
    /// The database computes it.
    Generated,
    /// Someone else writes it.
    Others,
}

/// One column of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    name: Cow<'static, str>,
    column_type: ColumnType,
    nullable: bool,
    role: ColumnRole,
    filling: Filling,
}

impl Column {
    /// A column that is found by its place, under this name in messages.
    pub(crate) fn unnamed<T: ColumnValue>(name: String) -> Self {
        Self {
            name: Cow::Owned(name),
            column_type: T::TYPE,
            nullable: T::NULLABLE,
            role: ColumnRole::Data,
            filling: Filling::Code,
        }
    }

    /// The name, a plain SQL identifier.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type.
    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        self.column_type
    }

    /// Whether it may be NULL.
    #[must_use]
    pub fn is_nullable(&self) -> bool {
        self.nullable
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> ColumnRole {
        self.role
    }

    /// Whether inserts and updates give it a value: it is neither generated nor read-only.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.filling == Filling::Code
    }

    /// Whether the database computes it: `#[mapper(generated)]`.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.filling == Filling::Generated
    }
}

/// What the rows of a child table hang on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    table: &'static str,
    key: String,
}

/// A table: the framework's columns first (version, tenant, audit, soft delete, as far as it has
/// them), then the key and data columns in the order of the type's fields.
///
/// Names come from derives, which accept plain identifiers only; so SQL built from a `Table`
/// holds no text of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    name: &'static str,
    columns: Vec<Column>,
    own: Range<usize>,
    children: Vec<Table>,
    parent: Option<Parent>,
    type_name: Option<&'static str>,
    is_sourced: bool,
    keeps_history: bool,
    is_shared: bool,
    shadow: Shadow,
}

/// The table that is built in the place of another, once somebody has asked for it. No part of
/// what a table is.
#[derive(Default)]
struct Shadow(OnceLock<Box<Table>>);

impl Clone for Shadow {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Shadow {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Shadow {}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shadow")
    }
}

impl Table {
    /// Starts a table without framework columns.
    pub fn builder(name: &'static str) -> TableBuilder {
        TableBuilder {
            table: Self {
                name,
                columns: Vec::new(),
                own: 0..0,
                children: Vec::new(),
                parent: None,
                type_name: None,
                is_sourced: false,
                keeps_history: false,
                is_shared: false,
                shadow: Shadow::default(),
            },
            prefix: String::new(),
            nullable: false,
            children: Vec::new(),
        }
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The table that is built while this one is read, to take its place: the same columns under
    /// the name `<table>__new`. For authors of backends.
    #[must_use]
    pub fn shadow(&'static self) -> &'static Self {
        self.shadow.0.get_or_init(|| {
            let name = format!("{}__new", self.name);
            Box::new(Self {
                // Kept for as long as the table, which is never dropped.
                name: name.leak(),
                ..self.clone()
            })
        })
    }

    /// The Rust type of its rows, for messages; `None` where it is not known.
    #[must_use]
    pub fn type_name(&self) -> Option<&'static str> {
        self.type_name
    }

    /// All columns, in the order in which every statement of the framework selects them.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The key and data columns: what a mapping reads and writes.
    #[must_use]
    pub fn own_columns(&self) -> &[Column] {
        &self.columns[self.own.clone()]
    }

    /// The columns in front of the [own](Self::own_columns) ones.
    #[must_use]
    pub fn framework_columns(&self) -> &[Column] {
        &self.columns[..self.own.start]
    }

    /// The key columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.own_columns()
            .iter()
            .filter(|column| column.role == ColumnRole::Key)
    }

    /// The columns of the primary key. An aggregate's key is unique over all tenants; a read model's
    /// is unique within one; a child has its own key, or else its place, within its parent.
    pub fn primary_key(&self) -> impl Iterator<Item = &Column> {
        let within = match (self.is_child(), self.is_aggregate()) {
            (true, _) => self.column_with(ColumnRole::Parent),
            (false, true) => None,
            (false, false) => self.column_with(ColumnRole::Tenant),
        };
        let has_key = self.key_columns().next().is_some();
        let place = self.column_with(ColumnRole::Order).filter(|_| !has_key);
        within.into_iter().chain(self.key_columns()).chain(place)
    }

    /// The tables of the children, in the order of the fields.
    #[must_use]
    pub fn children(&self) -> &[Table] {
        &self.children
    }

    /// This table, then those of its children.
    pub fn with_children(&self) -> impl Iterator<Item = &Table> + Clone {
        std::iter::once(self).chain(&self.children)
    }

    /// The table of children with this name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Table> {
        self.children.iter().find(|child| child.name == name)
    }

    /// For a table of children the table and the key column that their
    /// [parent column](ColumnRole::Parent) refers to.
    #[must_use]
    pub fn parent(&self) -> Option<(&'static str, &str)> {
        let parent = self.parent.as_ref()?;
        Some((parent.table, &parent.key))
    }

    /// Whether its rows are the children of an aggregate.
    #[must_use]
    pub fn is_child(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether its rows are aggregates.
    #[must_use]
    pub fn is_aggregate(&self) -> bool {
        self.column_with(ColumnRole::Version).is_some()
    }

    /// Whether it stands for an [event-sourced](crate::Sourced) aggregate: there is no such table in
    /// a database, and its columns are the identity of the aggregate alone.
    #[must_use]
    pub fn is_sourced(&self) -> bool {
        self.is_sourced
    }

    /// Whether events of all tenants may be folded into the same rows: a read model without tenants
    /// that says `#[read_model(shared)]`.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether a [revision](crate::history::Revision) of its aggregates is kept with each change.
    #[must_use]
    pub fn keeps_history(&self) -> bool {
        self.keeps_history
    }

    /// The error of a key that its columns cannot hold.
    #[must_use]
    pub fn key_error(&self, reason: ColumnError) -> MappingError {
        let columns: Vec<&str> = self.key_columns().map(Column::name).collect();
        MappingError {
            table: self.name().to_owned(),
            column: columns.join(", "),
            reason,
        }
    }

    /// The first column with this role.
    #[must_use]
    pub fn column_with(&self, role: ColumnRole) -> Option<&Column> {
        self.columns.iter().find(|column| column.role == role)
    }

    /// The position of the first column with this role among [all columns](Self::columns).
    #[must_use]
    pub fn index_of(&self, role: ColumnRole) -> Option<usize> {
        self.columns.iter().position(|column| column.role == role)
    }

    /// The position of a column by its name among [all columns](Self::columns).
    #[must_use]
    pub fn index_of_name(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Whether rows belong to a tenant.
    #[must_use]
    pub fn is_tenant(&self) -> bool {
        self.column_with(ColumnRole::Tenant).is_some()
    }

    /// Whether rows are marked as deleted instead of being removed.
    #[must_use]
    pub fn is_soft_delete(&self) -> bool {
        self.column_with(ColumnRole::DeletedAt).is_some()
    }

    /// Whether its events are a chain: `#[aggregate(chained)]`.
    #[must_use]
    pub fn is_chained(&self) -> bool {
        self.column_with(ColumnRole::ChainHead).is_some()
    }

    /// Whether rows say who created and changed them, and when.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        self.column_with(ColumnRole::CreatedAt).is_some()
    }
}

/// Builds a [`Table`]; what derives emit.
///
/// Framework columns come first, then `key` and `column` in the order of the fields.
#[derive(Debug)]
#[must_use]
pub struct TableBuilder {
    table: Table,
    prefix: String,
    nullable: bool,
    children: Vec<Children>,
}

/// A table of children that waits for the key of its parent.
#[derive(Debug)]
struct Children {
    name: &'static str,
    order: &'static str,
    parent: Option<&'static str>,
    describe: fn(TableBuilder) -> TableBuilder,
    type_name: &'static str,
}

impl Children {
    fn build(&self, parent: &Table) -> Table {
        let key = parent.key_columns().next();
        let key = key.unwrap_or_else(|| panic!("table {}: children need a key", parent.name));
        let link = match self.parent {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("{}_{}", parent.name, key.name())),
        };
        let mut child =
            Table::builder(self.name).framework(link, key.column_type(), false, ColumnRole::Parent);
        if let Some(tenant) = parent.column_with(ColumnRole::Tenant) {
            let name = tenant.name.clone();
            child = child.framework(name, ColumnType::Text, false, ColumnRole::Tenant);
        }
        child = child.framework(self.order, ColumnType::Int32, false, ColumnRole::Order);
        let mut table = (self.describe)(child).build();
        table.type_name = Some(self.type_name);
        table.parent = Some(Parent {
            table: parent.name,
            key: key.name().to_owned(),
        });
        table
    }
}

impl TableBuilder {
    /// Says what type its rows are of.
    pub fn stores<T>(mut self) -> Self {
        self.table.type_name = Some(std::any::type_name::<T>());
        self
    }

    /// Says that it stands for an event-sourced aggregate.
    pub fn sourced(mut self) -> Self {
        self.table.is_sourced = true;
        self
    }

    /// Says that events of all tenants may be folded into the same rows.
    pub fn shared(mut self) -> Self {
        self.table.is_shared = true;
        self
    }

    /// Says that a revision is kept with each change.
    pub fn history(mut self) -> Self {
        self.table.keeps_history = true;
        self
    }

    /// Adds the version column of an aggregate.
    pub fn version(self) -> Self {
        self.framework("version", ColumnType::Int64, false, ColumnRole::Version)
    }

    /// Adds the tenant column under this name.
    pub fn tenant(self, name: &'static str) -> Self {
        self.framework(name, ColumnType::Text, false, ColumnRole::Tenant)
    }

    /// Adds `created_at`, `created_by`, `updated_at` and `updated_by`.
    pub fn audit(self) -> Self {
        self.framework(
            "created_at",
            ColumnType::Timestamp,
            false,
            ColumnRole::CreatedAt,
        )
        .framework("created_by", ColumnType::Text, true, ColumnRole::CreatedBy)
        .framework(
            "updated_at",
            ColumnType::Timestamp,
            false,
            ColumnRole::UpdatedAt,
        )
        .framework("updated_by", ColumnType::Text, true, ColumnRole::UpdatedBy)
    }

    /// Adds `deleted_at` and `deleted_by`.
    pub fn soft_delete(self) -> Self {
        self.framework(
            "deleted_at",
            ColumnType::Timestamp,
            true,
            ColumnRole::DeletedAt,
        )
        .framework("deleted_by", ColumnType::Text, true, ColumnRole::DeletedBy)
    }

    /// Adds `chain_head`.
    pub fn chained(self) -> Self {
        self.framework("chain_head", ColumnType::Bytes, true, ColumnRole::ChainHead)
    }

    fn framework(
        mut self,
        name: impl Into<Cow<'static, str>>,
        column_type: ColumnType,
        nullable: bool,
        role: ColumnRole,
    ) -> Self {
        debug_assert!(self.table.own.is_empty(), "framework columns come first");
        self.table.columns.push(Column {
            name: name.into(),
            column_type,
            nullable,
            role,
            filling: Filling::Code,
        });
        self.table.own = self.table.columns.len()..self.table.columns.len();
        self
    }

    /// Adds a key column of type `T`.
    pub fn key<T: ColumnValue>(self, name: &'static str) -> Self {
        self.own(name, T::TYPE, T::NULLABLE, ColumnRole::Key)
    }

    /// Adds a data column of type `T`.
    pub fn column<T: ColumnValue>(self, name: &'static str) -> Self {
        self.own(name, T::TYPE, T::NULLABLE, ColumnRole::Data)
    }

    /// Makes the column that was added last one that the database computes.
    pub fn generated(self) -> Self {
        self.filled(Filling::Generated)
    }

    /// Makes the column that was added last one that is read and never written.
    pub fn read_only(self) -> Self {
        self.filled(Filling::Others)
    }

    fn filled(mut self, filling: Filling) -> Self {
        if let Some(column) = self.table.columns.last_mut() {
            column.filling = filling;
        }
        self
    }

    /// Adds a table of children, whose place among their siblings is in the column `order`, and the
    /// key of their parent in `parent`, otherwise in a column named after the parent's table and
    /// key: `route_plan_id`.
    pub fn children<T: Child>(
        mut self,
        name: &'static str,
        order: &'static str,
        parent: Option<&'static str>,
    ) -> Self {
        self.children.push(Children {
            name,
            order,
            parent,
            describe: T::describe,
            type_name: std::any::type_name::<T>(),
        });
        self
    }

    /// Adds the columns of a value object, each with `prefix` in front of its name.
    pub fn flatten<T: ValueObject>(mut self, prefix: &str) -> Self {
        let outer = self.prefix.len();
        let nullable = self.nullable;
        self.prefix.push_str(prefix);
        self.nullable |= T::NULLABLE;
        self = T::describe(self);
        self.prefix.truncate(outer);
        self.nullable = nullable;
        self
    }

    /// Adds the columns of a separate row struct.
    pub fn row<T: Record>(self) -> Self {
        T::describe(self)
    }

    fn own(
        mut self,
        name: &'static str,
        column_type: ColumnType,
        nullable: bool,
        role: ColumnRole,
    ) -> Self {
        let name = if self.prefix.is_empty() {
            Cow::Borrowed(name)
        } else {
            Cow::Owned(format!("{}{name}", self.prefix))
        };
        self.table.columns.push(Column {
            name,
            column_type,
            nullable: nullable || self.nullable,
            role,
            filling: Filling::Code,
        });
        self.table.own.end = self.table.columns.len();
        self
    }

    /// The finished table.
    ///
    /// # Panics
    ///
    /// If two columns have one name, which a derive cannot see when a flattened value object
    /// meets a field of the same name; or two of its tables.
    pub fn build(mut self) -> Table {
        assert!(self.prefix.is_empty(), "every flatten is closed");
        for (index, column) in self.table.columns.iter().enumerate() {
            assert!(
                !self.table.columns[..index]
                    .iter()
                    .any(|other| other.name == column.name),
                "table {} has two columns named {}: rename one with `#[mapper(column = \"...\")]`",
                self.table.name,
                column.name
            );
        }
        for children in &self.children {
            let child = children.build(&self.table);
            assert!(
                self.table
                    .with_children()
                    .all(|other| other.name != child.name),
                "table {}: children need a table of their own",
                child.name
            );
            self.table.children.push(child);
        }
        self.table
    }
}
