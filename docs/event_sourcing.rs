//! What the page on event sourcing shows.

use std::fmt;

use chrono::{TimeDelta, Utc};
use cqrs_core::{
    Aggregate, AsOf, Decide, DomainError, DomainEvent, EventHistory, RequestContext, Result, Root,
    Sourced, SourcedState, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::SqliteStore;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "account")]
pub(crate) enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = AccountEvent, tenant, snapshot(every = 100))]
pub(crate) struct Account {
    #[aggregate(id)]
    number: String,
    #[aggregate(root)]
    root: Root<AccountEvent>,
    owner: String,
    cents: i64,
}

impl Sourced for Account {
    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner } => self.owner.clone_from(owner),
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

impl Account {
    pub(crate) fn open(number: &str, owner: &str) -> Self {
        let mut account = Self::blank(number.to_owned());
        let owner = owner.to_owned();
        account.raise(AccountEvent::Opened { owner });
        account
    }

    pub(crate) fn deposit(&mut self, cents: i64) {
        self.raise(AccountEvent::Deposited { cents });
    }
}

pub(crate) struct Withdraw {
    pub(crate) cents: i64,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Overdrawn;

impl Decide<Withdraw> for Account {
    type Error = Overdrawn;

    fn decide(&self, command: Withdraw) -> Result<Vec<AccountEvent>, Overdrawn> {
        if command.cents > self.cents {
            return Err(Overdrawn);
        }
        let cents = command.cents;
        Ok(vec![AccountEvent::Withdrawn { cents }])
    }
}

impl fmt::Display for Overdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is less on the account")
    }
}

impl std::error::Error for Overdrawn {}
impl DomainError for Overdrawn {}

async fn deposit<U: UnitOfWork>(uow: &mut U, number: &str, cents: i64) -> Result<()> {
    let mut account = uow.get::<Account>(number.to_owned()).await?;
    account.deposit(cents);
    uow.save(account)
}

async fn withdraw<U: UnitOfWork>(uow: &mut U, number: &str, cents: i64) -> Result<()> {
    uow.decide::<Account, _>(number.to_owned(), Withdraw { cents })
        .await
}

#[tokio::test]
async fn an_account_is_what_happened_to_it() -> Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?).with_actor("kim");

    store
        .execute(&ctx, async |uow| uow.save(Account::open("A1", "Ada")))
        .await?;
    store
        .execute(&ctx, async |uow| deposit(uow, "A1", 250).await)
        .await?;
    let refused = store
        .execute(&ctx, async |uow| withdraw(uow, "A1", 300).await)
        .await;
    assert!(refused.is_err_and(|error| error.domain() == Some(&Overdrawn)));
    let receipt = store
        .execute(&ctx, async |uow| withdraw(uow, "A1", 50).await)
        .await?;
    assert_eq!(receipt.events().len(), 1);

    let mut uow = store.unit_of_work(&ctx);
    let account = uow.get::<Account>("A1".to_owned()).await?;
    assert_eq!((account.owner.as_str(), account.cents), ("Ada", 200));
    assert_eq!(account.root.version(), 3);

    let mut accounts = uow.repository::<Account>();
    let second = accounts
        .find_as_of("A1".to_owned(), AsOf::Version(2))
        .await?;
    assert_eq!(second.map(|account| account.cents), Some(250));
    let an_hour_ago = Utc::now() - TimeDelta::hours(1);
    let before = accounts
        .find_as_of("A1".to_owned(), AsOf::Time(an_hour_ago))
        .await?;
    assert!(before.is_none());
    for event in accounts.events("A1".to_owned()).await? {
        let actor = event.metadata().actor.as_deref();
        println!("{} {actor:?}: {:?}", event.occurred_at(), event.payload());
    }
    Ok(())
}
