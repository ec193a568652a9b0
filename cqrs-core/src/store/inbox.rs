//! The inbox of a consumer of foreign messages.

use super::execute::{self, Attempt, Command, Outcome};
use super::work::Work;
use super::{BoxFuture, Store};
use crate::context::RequestContext;
use crate::error::{Error, Result, StoreErrorKind};
use crate::idempotency::IdempotencyKey;
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// The longest id of a message, and the longest name of a consumer, in bytes.
const LONGEST_ID: usize = 160;
const LONGEST_NAME: usize = 64;

/// The messages that a consumer has processed: for events of other systems, which arrive at least
/// once.
///
/// That a message was processed is recorded in the commit of its work, so there is no moment at
/// which one is there without the other. Each tenant has its own, and so has work across tenants.
///
/// # Example
///
/// ```
/// use cqrs_core::{Delivery, Inbox, InMemoryStore, RequestContext, TenantId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cqrs_core::Result<()> {
/// let store = InMemoryStore::new();
/// let context = RequestContext::tenant(TenantId::new("north")?);
/// let inbox = Inbox::new("billing")?;
///
/// let process = async || {
///     inbox
///         .process(&store, &context, "message-17", async |_uow| {
///             // change aggregates in the unit of work
///             Ok(())
///         })
///         .await
/// };
/// assert_eq!(process().await?.output(), &Delivery::First);
/// assert_eq!(process().await?.output(), &Delivery::Repeated);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    consumer: String,
}

/// Whether a message came for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It was processed now.
    First,
    /// It had been processed before, and nothing was done.
    Repeated,
}

impl Inbox {
    /// The inbox of a consumer. Two consumers of one message have two names.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error unless the name is 1 to 64 bytes without `/` and
    /// NUL.
    pub fn new(consumer: impl Into<String>) -> Result<Self> {
        let consumer = consumer.into();
        if !(1..=LONGEST_NAME).contains(&consumer.len()) || consumer.contains(['/', '\0']) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!(
                    "{consumer:?} is no name of a consumer: it takes 1 to {LONGEST_NAME} bytes of \
                     text without `/` and NUL"
                ),
            ));
        }
        Ok(Self { consumer })
    }

    /// The name of the consumer.
    #[must_use]
    pub fn consumer(&self) -> &str {
        &self.consumer
    }

    /// Runs `work` for a message as [`Store::execute`] does, unless the consumer has processed a
    /// message of this id in the scope of the context before.
    ///
    /// Where several run at once for one message, one commits. The receipt is that of the commit
    /// that processed the message, now or then.
    ///
    /// # Transaction
    ///
    /// What `work` writes, and that the message was processed, are one transaction.
    ///
    /// # Errors
    ///
    /// As [`Store::execute`]: the message then counts as not processed, and may come again. A
    /// [`Usage`](StoreErrorKind::Usage) error unless the id is 1 to 160 bytes without NUL.
    ///
    /// # Cancel safety
    ///
    /// As [`commit`](UnitOfWork::commit). The message may be delivered again.
    pub fn process<'s, S, F>(
        &self,
        store: &'s S,
        context: &'s RequestContext,
        message_id: &str,
        work: F,
    ) -> BoxFuture<'s, Result<CommitReceipt<Delivery>>>
    where
        S: Store,
        F: AsyncFnMut(&mut S::UnitOfWork) -> Result<()>
            + for<'u> Work<'u, S::UnitOfWork, ()>
            + Send
            + 's,
    {
        let key = self.key(message_id);
        let command = Command::new(work);
        Box::pin(async move {
            let message = Message { key: key?, command };
            execute::run(store, S::unit_of_work, context, message).await
        })
    }

    /// The keys of this consumer's messages begin with this. For authors of stores, who let
    /// operators forget old messages.
    #[must_use]
    pub fn key_prefix(&self) -> String {
        format!("{}{}/", IdempotencyKey::INBOX, self.consumer)
    }

    pub(crate) fn key(&self, message_id: &str) -> Result<IdempotencyKey> {
        if !(1..=LONGEST_ID).contains(&message_id.len()) || message_id.contains('\0') {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!(
                    "{message_id:?} is no id of a message: it takes 1 to {LONGEST_ID} bytes of \
                     text without NUL"
                ),
            ));
        }
        Ok(IdempotencyKey::of_framework(format!(
            "{}{message_id}",
            self.key_prefix()
        )))
    }
}

/// Work that is committed once for a message.
struct Message<F> {
    key: IdempotencyKey,
    command: Command<F, ()>,
}

impl<U, F> Attempt<U> for Message<F>
where
    U: UnitOfWork,
    F: for<'u> Work<'u, U, ()> + Send,
{
    type Output = Delivery;

    async fn attempt(&mut self, unit_of_work: &mut U) -> Result<Outcome<Delivery>> {
        if let Some(first) = unit_of_work.recorded(&self.key).await? {
            let receipt = first.into_receipt::<()>(&self.key)?;
            return Ok(Outcome::Done(receipt.with_output(Delivery::Repeated)));
        }
        self.command.run(unit_of_work).await?;
        unit_of_work.record(&self.key, "null".to_owned())?;
        Ok(Outcome::Commit(Delivery::First))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_inboxes_are_their_own() {
        let key = |consumer, message| Inbox::new(consumer).unwrap().key(message).unwrap();
        assert_eq!(key("a", "b/c").as_str(), "cqrs.inbox/a/b/c");
        assert!(IdempotencyKey::new("cqrs.inbox/a/b").is_err());
        let longest = key(&"c".repeat(LONGEST_NAME), &"m".repeat(LONGEST_ID));
        assert!(longest.as_str().len() <= 255);
    }

    #[test]
    fn names_and_ids_that_do_not_fit_are_refused() {
        for name in ["", "a/b", "a\0", &"c".repeat(LONGEST_NAME + 1)] {
            assert!(Inbox::new(name).is_err(), "{name:?}");
        }
        let inbox = Inbox::new("a").unwrap();
        for id in ["", "a\0", &"m".repeat(LONGEST_ID + 1)] {
            assert!(inbox.key(id).is_err(), "{id:?}");
        }
    }
}
