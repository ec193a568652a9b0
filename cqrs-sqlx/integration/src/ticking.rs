//! A process manager of which each step waits for a deadline.

use chrono::TimeDelta;
use cqrs_core::conformance::fixtures::{AccountEvent, AccountForm, Ledger};
use cqrs_core::process::{Instance, Next, ProcessManager};
use cqrs_core::{Envelope, Repository, Result, UnitOfWork};
use serde::{Deserialize, Serialize};

/// From when an account is opened on, books the number of each deadline that passes, of so many in a
/// row.
#[derive(Debug, Clone, Copy)]
pub struct Ticking;

/// How many deadlines of an account have passed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticks {
    /// The number of them.
    pub passed: i64,
}

/// Books the number of a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Whose deadline it was.
    pub account: String,
    /// Its place among those of the account, from 1 on.
    pub number: i64,
}

impl Ticking {
    /// How many deadlines an account has.
    pub const STEPS: i64 = 15;

    /// The number of the ledger of an account.
    #[must_use]
    pub fn ledger(account: &str) -> String {
        format!("ticks of {account}")
    }

    fn again(next: &mut Next<'_, Tick>) {
        next.deadline_in("tick", TimeDelta::milliseconds(3));
    }
}

impl ProcessManager for Ticking {
    type Event = AccountEvent;
    type State = Ticks;
    type Command = Tick;

    const NAME: &'static str = "ticking";

    fn instance(&self, event: &Envelope<AccountEvent>) -> Option<Instance> {
        let account = event.aggregate_id_str();
        matches!(event.payload(), AccountEvent::Opened { .. }).then(|| Instance::starting(account))
    }

    fn on_event(
        &self,
        _: &mut Ticks,
        _: &Envelope<AccountEvent>,
        next: &mut Next<'_, Tick>,
    ) -> Result<()> {
        Self::again(next);
        Ok(())
    }

    fn on_deadline(&self, ticks: &mut Ticks, _: &str, next: &mut Next<'_, Tick>) -> Result<()> {
        ticks.passed += 1;
        next.command(Tick {
            account: next.instance().to_owned(),
            number: ticks.passed,
        });
        if ticks.passed < Self::STEPS {
            Self::again(next);
        }
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, tick: Tick, uow: &mut U) -> Result<()> {
        let ledger = Self::ledger(&tick.account);
        let found = uow.repository::<Ledger>().find(ledger.clone()).await?;
        let mut ledger = found.unwrap_or_else(|| Ledger::unopened(&ledger));
        ledger.transfer(tick.number);
        uow.save(ledger)
    }
}
