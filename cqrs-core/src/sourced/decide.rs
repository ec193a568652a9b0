//! Commands that return events.

use super::state::Sourced;

/// How an event-sourced aggregate answers a command: with the events that happen, or with the
/// reason why none does. It changes nothing, so it needs no store and no mock to be tested.
///
/// [`execute`](Self::execute) decides and raises; [`UnitOfWork::decide`](crate::UnitOfWork::decide)
/// also loads and saves.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, DomainEvent)]
/// # #[event(aggregate = "account")]
/// # enum AccountEvent { Deposited { cents: i64 }, Withdrawn { cents: i64 } }
/// # #[derive(Debug, Clone, Aggregate)]
/// # #[aggregate(sourced, event = AccountEvent)]
/// # struct Account {
/// #     #[aggregate(id)] number: i64,
/// #     #[aggregate(root)] root: Root<AccountEvent>,
/// #     cents: i64,
/// # }
/// # impl Sourced for Account {
/// #     fn apply(&mut self, event: &AccountEvent) {
/// #         match event {
/// #             AccountEvent::Deposited { cents } => self.cents += cents,
/// #             AccountEvent::Withdrawn { cents } => self.cents -= cents,
/// #         }
/// #     }
/// # }
/// # #[derive(Debug)]
/// # struct Overdrawn;
/// # impl std::fmt::Display for Overdrawn {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("overdrawn") }
/// # }
/// # impl std::error::Error for Overdrawn {}
/// # impl DomainError for Overdrawn {}
/// struct Withdraw {
///     cents: i64,
/// }
///
/// impl Decide<Withdraw> for Account {
///     type Error = Overdrawn;
///
///     fn decide(&self, command: Withdraw) -> Result<Vec<AccountEvent>, Overdrawn> {
///         if command.cents > self.cents {
///             return Err(Overdrawn);
///         }
///         Ok(vec![AccountEvent::Withdrawn { cents: command.cents }])
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let store = InMemoryStore::new();
/// # let context = RequestContext::system();
/// store
///     .execute(&context, async |uow| {
///         let mut account = Account::blank(1);
///         account.raise(AccountEvent::Deposited { cents: 5 });
///         uow.save(account)
///     })
///     .await?;
/// let withdraw = async |cents| {
///     store
///         .execute(&context, async |uow| uow.decide::<Account, _>(1, Withdraw { cents }).await)
///         .await
/// };
/// assert!(withdraw(9).await.unwrap_err().domain::<Overdrawn>().is_some());
/// assert_eq!(withdraw(2).await?.events().len(), 1);
/// # Ok(())
/// # }
/// ```
pub trait Decide<C>: Sourced {
    /// Why a command is refused.
    type Error;

    /// What happens by a command.
    ///
    /// # Errors
    ///
    /// Where a rule of the aggregate says no.
    fn decide(&self, command: C) -> Result<Vec<Self::Event>, Self::Error>;

    /// Decides a command and raises the events; returns how many there are.
    ///
    /// # Errors
    ///
    /// That of [`decide`](Self::decide); nothing has changed then.
    fn execute(&mut self, command: C) -> Result<usize, Self::Error> {
        let events = self.decide(command)?;
        let count = events.len();
        events.into_iter().for_each(|event| self.raise(event));
        Ok(count)
    }
}
