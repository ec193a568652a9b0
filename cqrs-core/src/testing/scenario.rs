//! Given events, when a command, then events.

use std::convert::Infallible;
use std::fmt::{self, Debug};

use chrono::{DateTime, Utc};

use super::diff::diff;
use super::unasked::Unasked;
use crate::aggregate::{AggregateRoot, AuditStamps, Root};
use crate::context::TenantId;
use crate::sourced::{Decide, Sourced};

/// An event-sourced aggregate to which these events have happened. Without any it is a new one.
///
/// # Example
///
/// ```
/// use cqrs_core::testing::given;
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
/// # impl Account {
/// #     fn withdraw(&mut self, cents: i64) -> Result<(), &'static str> {
/// #         if cents > self.cents { return Err("overdrawn"); }
/// #         self.raise(AccountEvent::Withdrawn { cents });
/// #         Ok(())
/// #     }
/// # }
/// let account = || given::<Account>(1, [AccountEvent::Deposited { cents: 5 }]);
///
/// account()
///     .when(|account| account.withdraw(3))
///     .then([AccountEvent::Withdrawn { cents: 3 }])
///     .then_state(|account| assert_eq!(account.cents, 2));
/// account().when(|account| account.withdraw(6)).then_error("overdrawn");
/// ```
pub fn given<A: Sourced>(id: A::Id, events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut aggregate = A::blank(id.clone());
    let mut folded = A::blank(id);
    let mut version = 0;
    for event in events {
        aggregate.apply(&event);
        folded.apply(&event);
        version += 1;
    }
    let stamps = AuditStamps::default();
    aggregate.root_mut().loaded(version, None, stamps, None);
    Given {
        aggregate,
        folded: Some(folded),
    }
}

/// An aggregate of either form as it would be loaded: the events that it has raised so far are not
/// those of the command.
pub fn given_stored<A: AggregateRoot>(mut aggregate: A) -> Given<A> {
    let raised = aggregate.root_mut().take_raised();
    let root = aggregate.root_mut();
    let version = root.version() + raised.len() as u64;
    root.saved(version);
    Given {
        aggregate,
        folded: None,
    }
}

/// An aggregate before a command.
#[derive(Debug, Clone)]
#[must_use = "say what happens: `when`"]
pub struct Given<A> {
    aggregate: A,
    /// What the events alone make of an event-sourced one.
    folded: Option<A>,
}

impl<A: AggregateRoot> Given<A> {
    /// When what is given happened: its [stamps](crate::Root::stamps) have no time unless told.
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        let (_, stamps) = self.aggregate.root_mut().ownership_mut();
        stamps.created_at = Some(time);
        stamps.updated_at = Some(time);
        self
    }

    /// Who did it: its [stamps](crate::Root::stamps) have nobody unless told.
    pub fn by(mut self, actor: &str) -> Self {
        let (_, stamps) = self.aggregate.root_mut().ownership_mut();
        stamps.created_by = Some(actor.to_owned());
        stamps.updated_by = Some(actor.to_owned());
        self
    }

    /// Whose it is; nobody's unless told.
    pub fn of_tenant(mut self, tenant: TenantId) -> Self {
        let (owner, _) = self.aggregate.root_mut().ownership_mut();
        *owner = Some(tenant);
        self
    }

    /// Runs a command: a method of the aggregate that returns nothing, or a `Result`.
    #[must_use = "say what is expected: `then`"]
    #[track_caller]
    pub fn when<R: CommandResult>(
        mut self,
        command: impl FnOnce(&mut A) -> R,
    ) -> Outcome<A, R::Error> {
        let result = command(&mut self.aggregate).into_result();
        self.outcome(result)
    }

    /// Has the aggregate [decide](Decide) a command.
    #[must_use = "say what is expected: `then`"]
    #[track_caller]
    pub fn when_decides<C>(mut self, command: C) -> Outcome<A, A::Error>
    where
        A: Decide<C>,
    {
        let result = self.aggregate.execute(command).map(drop);
        self.outcome(result)
    }

    #[track_caller]
    fn outcome<E>(self, result: Result<(), E>) -> Outcome<A, E> {
        let mut unasked = Unasked::default();
        unasked.step();
        Outcome {
            aggregate: self.aggregate,
            folded: self.folded,
            result,
            unasked,
        }
    }
}

/// What a command returns: nothing, or a [`Result`].
pub trait CommandResult {
    /// Why it is refused.
    type Error;

    /// Whether it was refused.
    ///
    /// # Errors
    ///
    /// Where it was.
    fn into_result(self) -> Result<(), Self::Error>;
}

impl CommandResult for () {
    type Error = Infallible;

    fn into_result(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<T, E> CommandResult for Result<T, E> {
    type Error = E;

    fn into_result(self) -> Result<(), E> {
        self.map(drop)
    }
}

/// An aggregate after a command. Its methods panic where the expectation is not met, with what
/// differs.
///
/// One of which nothing is expected panics when it is dropped, and so does one that was refused and
/// of which no error is expected: a test that forgets to look does not pass.
pub struct Outcome<A, E> {
    aggregate: A,
    folded: Option<A>,
    result: Result<(), E>,
    unasked: Unasked,
}

impl<A: Debug, E: Debug> Debug for Outcome<A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("aggregate", &self.aggregate)
            .field("result", &self.result)
            .finish()
    }
}

impl<A: AggregateRoot + Debug, E> Outcome<A, E> {
    /// Expects these events, in this order, and no error; and of an event-sourced aggregate that
    /// nothing but they have changed its state.
    ///
    /// # Panics
    ///
    /// Where the command was refused, or raised others; where the state is another than what `apply`
    /// makes of the events: it would be lost when the aggregate is loaded.
    #[track_caller]
    pub fn then(mut self, events: impl IntoIterator<Item = A::Event>) -> Self
    where
        A::Event: PartialEq + Debug,
        E: Debug,
    {
        let expected: Vec<A::Event> = events.into_iter().collect();
        if let Err(error) = &self.result {
            panic!("expected the events {expected:#?}, but the command was refused: {error:?}");
        }
        let found = self.aggregate.root().raised();
        assert!(
            found == expected,
            "the events differ (- expected, + raised):\n{}",
            diff(&expected, found)
        );
        self.check_state();
        self.unasked.asked();
        self
    }

    /// Expects no error, and hands the events to `check`: for those that cannot be written down, as
    /// with ids and times that are made in the command. Of an event-sourced aggregate it expects what
    /// [`then`](Self::then) does.
    ///
    /// # Panics
    ///
    /// Where the command was refused, and where `check` does; where the state is another than what
    /// `apply` makes of the events.
    ///
    /// # Example
    ///
    /// ```
    /// use cqrs_core::testing::given;
    /// # use cqrs_core::*;
    /// # struct Ticket;
    /// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, DomainEvent)]
    /// # #[event(aggregate = "desk")]
    /// # enum DeskEvent { TicketOpened { id: Id<Ticket>, by: String } }
    /// # #[derive(Debug, Clone, Aggregate)]
    /// # #[aggregate(sourced, event = DeskEvent)]
    /// # struct Desk {
    /// #     #[aggregate(id)] number: i64,
    /// #     #[aggregate(root)] root: Root<DeskEvent>,
    /// # }
    /// # impl Sourced for Desk {
    /// #     fn apply(&mut self, event: &DeskEvent) { match event { DeskEvent::TicketOpened { .. } => {} } }
    /// # }
    /// # impl Desk {
    /// #     fn open_ticket(&mut self, by: &str) {
    /// #         self.raise(DeskEvent::TicketOpened { id: Id::new(), by: by.to_owned() });
    /// #     }
    /// # }
    /// given::<Desk>(1, [])
    ///     .when(|desk| desk.open_ticket("ann"))
    ///     .then_events(|events| match events {
    ///         [DeskEvent::TicketOpened { id: _, by }] => assert_eq!(by, "ann"),
    ///         others => panic!("expected a ticket, got {others:#?}"),
    ///     });
    /// ```
    #[track_caller]
    pub fn then_events(mut self, check: impl FnOnce(&[A::Event])) -> Self
    where
        E: Debug,
    {
        if let Err(error) = &self.result {
            panic!("expected events, but the command was refused: {error:?}");
        }
        check(self.aggregate.root().raised());
        self.check_state();
        self.unasked.asked();
        self
    }

    /// Expects that nothing happens, and no error.
    ///
    /// # Panics
    ///
    /// Where the command was refused, or raised an event.
    #[track_caller]
    pub fn then_nothing(self) -> Self
    where
        A::Event: PartialEq + Debug,
        E: Debug,
    {
        self.then([])
    }

    /// Expects this error, and that nothing happened.
    ///
    /// # Panics
    ///
    /// Where the command was not refused, or for another reason; or raised an event before.
    #[track_caller]
    pub fn then_error<X: Debug>(self, error: X) -> Self
    where
        A::Event: Debug,
        E: PartialEq<X> + Debug,
    {
        self.then_error_if(|found| {
            assert!(
                *found == error,
                "expected the error {error:?}, but it is {found:?}"
            );
        })
    }

    /// Expects an error, of which `check` asserts what it likes, and that nothing happened.
    ///
    /// # Panics
    ///
    /// Where the command was not refused, or raised an event before; and where `check` does.
    #[track_caller]
    pub fn then_error_if(mut self, check: impl FnOnce(&E)) -> Self
    where
        A::Event: Debug,
    {
        let raised = self.aggregate.root().raised();
        match &self.result {
            Ok(()) => panic!("expected that the command is refused, but it raised {raised:#?}"),
            Err(error) => check(error),
        }
        assert!(
            raised.is_empty(),
            "the command was refused, and yet it raised {raised:#?}"
        );
        self.check_state();
        self.unasked.asked();
        self
    }

    /// Hands the aggregate to `check`. Where the command was refused, say
    /// [`then_error`](Self::then_error) too.
    #[track_caller]
    pub fn then_state(mut self, check: impl FnOnce(&A)) -> Self {
        check(&self.aggregate);
        if self.result.is_ok() {
            self.unasked.asked();
        }
        self
    }

    /// An event-sourced aggregate is what its events make of it, and nothing more.
    #[track_caller]
    fn check_state(&mut self) {
        let Some((folded, sourcing)) = self.folded.as_mut().zip(A::SOURCING) else {
            return;
        };
        for event in self.aggregate.root().raised() {
            sourcing.apply(folded, event);
        }
        let root = std::mem::take(self.aggregate.root_mut());
        *folded.root_mut() = Root::new();
        // Maps have no order, so their lines have none.
        let lines = |aggregate: &A| {
            let text = format!("{aggregate:#?}");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        let (expected, found) = (&*folded, &self.aggregate);
        assert!(
            lines(expected) == lines(found),
            "the state was changed otherwise than by `apply` (- what the events make, + what it is):\n{}",
            diff(&[expected], &[found])
        );
        *self.aggregate.root_mut() = root;
        self.folded = None;
    }
}
