//! What the page on event sourcing shows.

use std::fmt;

use chrono::{TimeDelta, Utc};
use cqrs_core::testing::{Golden, given};
use cqrs_core::{
    Aggregate, AsOf, ConsoleEventBus, Decide, DomainError, DomainEvent, EventHistory, Relay,
    RequestContext, Result, Root, Sourced, SourcedState, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::SqliteStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

#[deny(clippy::wildcard_enum_match_arm)]
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

/// Withdraws what an owner has on two accounts together, at most.
async fn withdraw_on_both<U: UnitOfWork>(
    uow: &mut U,
    number: &str,
    other: &str,
    cents: i64,
) -> Result<()> {
    let mut account = uow.get::<Account>(number.to_owned()).await?;
    let other = uow.get::<Account>(other.to_owned()).await?;
    if account.cents + other.cents < cents {
        return Err(Overdrawn.into());
    }
    account.raise(AccountEvent::Withdrawn { cents });
    uow.guard(&other)?;
    uow.save(account)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "invoice")]
enum InvoiceEvent {
    #[event(version = 3, upcast(1 = in_cents, 2 = with_currency))]
    Issued { cents: i64, currency: String },
    #[event(name = "invoice.settled", was("invoice.paid"))]
    Settled,
}

#[derive(Deserialize)]
struct IssuedV1 {
    euros: i64,
}

#[derive(Serialize)]
struct IssuedV2 {
    cents: i64,
}

fn in_cents(old: IssuedV1) -> IssuedV2 {
    let cents = old.euros * 100;
    IssuedV2 { cents }
}

fn with_currency(mut old: Value) -> Value {
    old["currency"] = "EUR".into();
    old
}

#[test]
fn invoices_of_every_release_are_read() {
    let currency = "CHF".to_owned();
    let issued = InvoiceEvent::Issued {
        cents: 70,
        currency,
    };
    let samples = [issued, InvoiceEvent::Settled];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/golden/invoice");
    let read = Golden::<InvoiceEvent>::new(folder).check(&samples);
    assert_eq!(read.len(), 5);
}

#[test]
fn an_account_is_tested_without_a_store() {
    let account = || {
        let owner = "Ada".to_owned();
        let before = [
            AccountEvent::Opened { owner },
            AccountEvent::Deposited { cents: 5 },
        ];
        given::<Account>("A1".to_owned(), before)
    };
    account()
        .when(|account| account.deposit(3))
        .then([AccountEvent::Deposited { cents: 3 }])
        .then_state(|account| assert_eq!(account.cents, 8));
    account()
        .when_decides(Withdraw { cents: 6 })
        .then_error(Overdrawn);
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
    store
        .execute(&ctx, async |uow| uow.save(Account::open("A2", "Ada")))
        .await?;
    let refused = store
        .execute(&ctx, async |uow| {
            withdraw_on_both(uow, "A2", "A1", 300).await
        })
        .await;
    assert!(refused.is_err_and(|error| error.domain() == Some(&Overdrawn)));

    let mut uow = store.unit_of_work(&ctx);
    let account = uow.get::<Account>("A1".to_owned()).await?;
    assert_eq!((account.owner.as_str(), account.cents), ("Ada", 200));
    assert_eq!(account.root.version(), 3);
    store.verify_events::<InvoiceEvent>().await?;
    let _ = Relay::new("outgoing", ConsoleEventBus::stdout()).upcasting::<InvoiceEvent>();

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
