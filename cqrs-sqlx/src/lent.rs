//! Transactions whose connection was lent to SQL of the application.

use cqrs_core::{Error, Result, StoreErrorKind};

use crate::backend::{Backend, Mark};

/// What is known of a transaction since its connection was lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lent {
    /// It was not lent.
    Never,
    /// It was, and nobody has looked at the transaction since.
    Unseen,
    /// It was, and the transaction was still open.
    Open,
    /// The transaction is over, or whoever looked was interrupted.
    Ended,
}

impl Lent {
    /// The connection is about to be lent.
    pub(crate) fn lend(&mut self) {
        if *self != Self::Ended {
            *self = Self::Unseen;
        }
    }

    /// Looks whether the transaction is still open, where that is not known: whether `depth`
    /// transactions and savepoints are, and the database has one too, the one that was marked if it
    /// was. sqlx ends the innermost by itself when the future of a nested `begin` is dropped.
    ///
    /// # Errors
    ///
    /// `Usage` where it is over: what followed would be outside of any.
    pub(crate) async fn look<B: Backend>(
        &mut self,
        connection: &mut B::Connection,
        depth: usize,
        mark: &mut Option<Mark>,
    ) -> Result<()> {
        if *self == Self::Unseen {
            *self = Self::Ended;
            // In this order: what is counted is right when what was sent before is answered.
            if B::is_in_transaction(connection, mark).await? && B::depth(connection) == depth {
                *self = Self::Open;
            }
        }
        match self {
            Self::Ended => Err(ended()),
            Self::Never | Self::Unseen | Self::Open => Ok(()),
        }
    }
}

/// The error for a transaction that is over.
pub(crate) fn ended() -> Error {
    Error::store(
        StoreErrorKind::Usage,
        "SQL of the application has ended the transaction that it ran in, as `OR ROLLBACK` does, or \
         left one open within it",
    )
}
