//! How each side commits.

use anyhow::{Result, ensure};
use cqrs_core::{RequestContext, Store, TenantId, UnitOfWork};
use cqrs_sqlx::PgStore;
use sqlx::PgPool;
use sqlx::postgres::PgConnection;

use crate::domain::{Change, Order, Place};
use crate::hand_written::{self, Caller};

/// How a side commits.
pub(super) trait Commit: Send + 'static {
    /// Places an order.
    fn place(&mut self, place: &Place) -> impl Future<Output = Result<()>> + Send;

    /// Changes an order.
    fn change(&mut self, change: &Change) -> impl Future<Output = Result<()>> + Send;
}

/// The framework.
pub(super) struct Ours {
    pub(super) store: PgStore,
    pub(super) tenant: TenantId,
    pub(super) actor: String,
}

impl Ours {
    fn context(&self) -> RequestContext {
        RequestContext::tenant(self.tenant.clone()).with_actor(&*self.actor)
    }
}

impl Commit for Ours {
    async fn place(&mut self, place: &Place) -> Result<()> {
        let context = self.context();
        let receipt = self
            .store
            .execute(&context, async |unit_of_work| {
                unit_of_work.save(Order::place(place))
            })
            .await?;
        ensure!(receipt.position().is_some(), "nothing was written");
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        let context = self.context();
        let receipt = self
            .store
            .execute(&context, async |unit_of_work| {
                let mut order: Order = unit_of_work.get(change.id).await?;
                order.change(change);
                unit_of_work.save(order)
            })
            .await?;
        ensure!(receipt.position().is_some(), "nothing was written");
        Ok(())
    }
}

/// One statement on a pool.
pub(super) struct Single {
    pub(super) pool: PgPool,
    pub(super) caller: Caller,
}

impl Commit for Single {
    async fn place(&mut self, place: &Place) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        hand_written::place_in_one(&mut connection, &self.caller, place).await?;
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        hand_written::change_in_one(&mut connection, &self.caller, change).await?;
        Ok(())
    }
}

/// A transaction on a pool.
pub(super) struct Steps {
    pub(super) pool: PgPool,
    pub(super) caller: Caller,
}

impl Commit for Steps {
    async fn place(&mut self, place: &Place) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hand_written::place_in_steps(&mut transaction, &self.caller, place).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hand_written::change_in_steps(&mut transaction, &self.caller, change).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// One statement on a connection of the writer's own.
pub(super) struct Held {
    pub(super) connection: PgConnection,
    pub(super) caller: Caller,
}

impl Commit for Held {
    async fn place(&mut self, place: &Place) -> Result<()> {
        hand_written::place_in_one(&mut self.connection, &self.caller, place).await?;
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        hand_written::change_in_one(&mut self.connection, &self.caller, change).await?;
        Ok(())
    }
}
