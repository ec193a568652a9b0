//! The sides: each loads the same rows on one connection of its own.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use cqrs_core::{RequestContext, Store, TenantId, UnitOfWork};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use uuid::Uuid;

use crate::database::TENANT;
use crate::domain::Order;
use crate::domain::Orders as _;
use crate::report::OURS;

/// Who loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Side {
    /// A finder.
    Ours,
    /// sqlx's derived `FromRow`.
    FromRow,
}

impl Side {
    pub(super) const ALL: [Self; 2] = [Self::Ours, Self::FromRow];

    /// Its name in the results, and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::FromRow => "from-row",
        }
    }
}

/// A row as an application would read it with sqlx alone: all columns of the table.
#[derive(Debug, sqlx::FromRow)]
#[expect(
    dead_code,
    reason = "all columns are decoded, as they are by the finder"
)]
struct OrderRow {
    version: i64,
    tenant_id: String,
    created_at: DateTime<Utc>,
    created_by: Option<String>,
    updated_at: DateTime<Utc>,
    updated_by: Option<String>,
    deleted_at: Option<DateTime<Utc>>,
    deleted_by: Option<String>,
    id: Uuid,
    customer: String,
    note: String,
    quantity: i64,
}

/// Loads all rows, over and over.
pub(super) enum Loader {
    Ours(PgStore, RequestContext),
    FromRow(PgConnection),
}

impl Loader {
    pub(super) async fn open(database: &PgConnectOptions, side: Side) -> Result<Self> {
        Ok(match side {
            Side::Ours => {
                let options = StoreOptions::default().max_connections(1);
                let store = PgStore::connect_with(database.clone(), options).await?;
                let context = RequestContext::tenant(TenantId::new(TENANT)?);
                Self::Ours(store, context)
            }
            Side::FromRow => Self::FromRow(PgConnection::connect_with(database).await?),
        })
    }

    /// Loads them once; the sum of their quantities.
    pub(super) async fn load(&mut self) -> Result<i64> {
        match self {
            Self::Ours(store, context) => {
                let mut uow = store.unit_of_work(context);
                let orders = uow.repository::<Order>().find_placed(1_000).await?;
                Ok(orders.iter().map(Order::quantity).sum())
            }
            Self::FromRow(connection) => {
                let rows: Vec<OrderRow> = sqlx::query_as(
                    "SELECT version, tenant_id, created_at, created_by, updated_at, updated_by, \
                     deleted_at, deleted_by, id, customer, note, quantity FROM bench_order \
                     WHERE tenant_id = $1 AND deleted_at IS NULL AND quantity > $2 \
                     ORDER BY quantity ASC, id ASC LIMIT $3",
                )
                .bind(TENANT)
                .bind(0_i64)
                .bind(1_000_i64)
                .fetch_all(connection)
                .await?;
                Ok(rows.iter().map(|row| row.quantity).sum())
            }
        }
    }
}
