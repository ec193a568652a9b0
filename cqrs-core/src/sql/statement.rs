//! A statement of a finder, as the macro emits it.

use std::fmt;

use super::Columns;
use crate::context::TenantScope;
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::ColumnType;

/// A statement of a finder.
///
/// Its parameters are `$1`, `$2` and so on in the order of [`parameters`](Self::parameters); the
/// tenant comes after them.
#[derive(Debug)]
pub struct Statement {
    /// The trait.
    pub repository: &'static str,
    /// The method.
    pub finder: &'static str,
    /// The text, or one for each database.
    pub texts: &'static [Text],
    /// The parameters of the method.
    pub parameters: &'static [Parameter],
    /// Whose rows it reads.
    pub tenants: Tenants,
    /// Whether it locks rows, so that it needs a unit of work that writes.
    pub locks: bool,
    /// The columns of its rows.
    pub columns: fn() -> Columns,
}

/// A text of a statement.
#[derive(Debug)]
pub struct Text {
    /// The database that it is for; `None` for those that have no text of their own.
    pub database: Option<&'static str>,
    /// The SQL.
    pub sql: &'static str,
}

/// A parameter of a finder.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// The type of its value, or of the values of its list.
    pub column_type: ColumnType,
    /// Whether it is a list.
    pub is_list: bool,
}

/// Whose rows a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenants {
    /// Those of the tenant of the scope, which is bound to `:tenant`.
    One,
    /// Those of all tenants, in the scope of the system.
    All,
    /// Rows that belong to none.
    Without,
}

impl Statement {
    /// Its text for a database.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where it has none.
    pub fn text(&self, database: &str) -> Result<&'static str> {
        let own = |text: &&Text| text.database == Some(database);
        let texts = || self.texts.iter();
        texts()
            .find(own)
            .or_else(|| texts().find(|text| text.database.is_none()))
            .map(|text| text.sql)
            .ok_or_else(|| self.usage(format_args!("has no SQL for {database}")))
    }

    /// The tenant to bind after the arguments, in a scope.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where it is not for this scope.
    pub fn tenant<'s>(&self, scope: &'s TenantScope) -> Result<Option<&'s str>> {
        match (self.tenants, scope) {
            (Tenants::One, TenantScope::Tenant(tenant)) => Ok(Some(tenant.as_str())),
            (Tenants::One, TenantScope::System) => {
                Err(self.usage(format_args!("reads the rows of one tenant: name it")))
            }
            (Tenants::All, TenantScope::Tenant(_)) => Err(self.usage(format_args!(
                "reads the rows of all tenants: it needs the scope of the system"
            ))),
            (Tenants::All, TenantScope::System) | (Tenants::Without, _) => Ok(None),
        }
    }

    /// How many values are bound.
    #[must_use]
    pub fn values(&self) -> usize {
        self.parameters.len() + usize::from(self.tenants == Tenants::One)
    }

    /// A [`Usage`](StoreErrorKind::Usage) error of this statement.
    #[must_use]
    pub fn usage(&self, what: fmt::Arguments<'_>) -> Error {
        Error::store(StoreErrorKind::Usage, format!("{self} {what}"))
    }
}

/// `OrderReports::totals`.
impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.repository, self.finder)
    }
}
