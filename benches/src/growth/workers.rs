//! Who loads and commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Result, ensure};
use cqrs_core::{AggregateRoot as _, RequestContext, Store as _, UnitOfWork as _};
use cqrs_sqlx::PgStore;

use super::filled::{EVENTS_OF_A_METER, Filled, tenant};
use crate::domain::{Basket, Order, Place};
use crate::harness::Worker;
use crate::sourced::Meter;

/// How many aggregates are loaded again and again.
const WARM: i64 = 1_000;

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    /// Loads an event-sourced aggregate of the log, another one each time.
    LoadMeter,
    /// Loads one of a few again.
    LoadAgain,
    /// Commits an aggregate that is stored by its state, and its event.
    PlaceOrder,
    /// Loads an aggregate with its children.
    GetBasket,
    /// Commits one with its children.
    FillBasket,
}

/// Does it again and again.
pub(super) struct Hand {
    deed: Deed,
    store: PgStore,
    tenants: i64,
    meters: i64,
    baskets: Arc<[Basket]>,
    children: i64,
    /// Goes on from slice to slice, so that what is loaded was not loaded before.
    number: Arc<AtomicI64>,
    /// How many events it has committed.
    pub(super) committed: i64,
}

impl Hand {
    pub(super) fn new(filled: &Filled, deed: Deed) -> Self {
        Self {
            deed,
            store: filled.store.clone(),
            tenants: filled.tenants,
            meters: filled.meters,
            baskets: Arc::clone(&filled.baskets),
            children: filled.children,
            number: Arc::clone(&filled.number),
            committed: 0,
        }
    }

    /// A number below `below`, far from the last one.
    fn next(&self, below: i64) -> i64 {
        /// A prime that divides no likely size.
        const STRIDE: i64 = 7_919;
        self.number.fetch_add(1, Ordering::Relaxed) * STRIDE % below.max(1)
    }
}

impl Worker for Hand {
    async fn work(&mut self) -> Result<()> {
        match self.deed {
            Deed::LoadMeter => self.load(self.next(self.meters)).await?,
            Deed::LoadAgain => self.load(self.next(WARM.min(self.meters))).await?,
            Deed::PlaceOrder => {
                let number = self.next(self.tenants);
                let context = RequestContext::tenant(tenant(number)?);
                let order = Order::place(&Place {
                    customer: format!("customer {number}"),
                    note: "Ring twice.".to_owned(),
                    quantity: 1,
                });
                self.commit(&context, order).await?;
            }
            Deed::GetBasket => {
                let count = i64::try_from(self.baskets.len())?;
                let index = usize::try_from(self.next(count))?;
                let expected = &self.baskets[index];
                let context = RequestContext::tenant(tenant(0)?);
                let mut uow = self.store.unit_of_work(&context);
                let basket: Basket = uow.get(*expected.id()).await?;
                ensure!(basket.pieces() == expected.pieces(), "another basket");
            }
            Deed::FillBasket => {
                let context = RequestContext::tenant(tenant(0)?);
                let basket = Basket::fill(self.next(i64::MAX), self.children);
                self.commit(&context, basket).await?;
            }
        }
        Ok(())
    }
}

impl Hand {
    async fn load(&self, id: i64) -> Result<()> {
        let context = RequestContext::tenant(tenant(id % self.tenants)?);
        let meter: Meter = self.store.unit_of_work(&context).get(id).await?;
        ensure!(meter.sum == EVENTS_OF_A_METER, "another meter");
        Ok(())
    }

    async fn commit<A>(&mut self, context: &RequestContext, aggregate: A) -> Result<()>
    where
        A: cqrs_core::AggregateRoot,
    {
        let mut uow = self.store.unit_of_work(context);
        uow.save(aggregate)?;
        let receipt = uow.commit().await?;
        ensure!(receipt.position().is_some(), "nothing was written");
        self.committed += 1;
        Ok(())
    }
}
