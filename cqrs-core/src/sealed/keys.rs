//! Where keys are kept, and how one gets them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use tracing::Instrument;

use super::error::{Forgotten, SealedError};
use super::key::{KeyRing, SecretKey, SubjectKey};
use super::subject::Subject;
use crate::context::{RequestContext, TenantId};
use crate::error::Result;
use crate::store::BoxFuture;

/// What a [`KeyStore`] has for a subject.
#[derive(Debug, Clone)]
pub enum KeyState {
    /// Its key.
    Kept(SecretKey),
    /// It had a key, or never got one, and was forgotten.
    Destroyed,
    /// It has a key that cannot be read: other subjects are not held up by it.
    Unreadable(SealedError),
}

/// Where the keys of subjects are kept: a table of the database, unless the store is given another
/// one, such as a key service.
///
/// Subjects are told apart by their tenant, which is `None` for those of the system itself. Nothing
/// keeps what a store of keys returns, so what it says is true for the next piece of work; it may be
/// asked often.
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// What it has for these subjects; those that it does not know are left out. They are all
    /// different.
    ///
    /// # Errors
    ///
    /// Where the keys cannot be had.
    fn find<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<HashMap<Subject, KeyState>>>;

    /// What it has for a subject; it makes a key for one that it does not know. Of two that ask for
    /// the same at once both get the same.
    ///
    /// # Errors
    ///
    /// Where keys cannot be had or kept.
    fn find_or_make<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<KeyState>>;

    /// Destroys the key of a subject for good, and remembers that, also of a subject that it does not
    /// know: once this returns, it is [`Destroyed`](KeyState::Destroyed) and gets no key again.
    /// `false` where it was already.
    ///
    /// # Errors
    ///
    /// Where that is not certain.
    fn destroy<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subject: &'a Subject,
        by: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool>>;
}

/// A store with keys for sealed fields.
pub trait Sealing {
    /// Where the keys are kept.
    fn key_store(&self) -> Arc<dyn KeyStore>;

    /// The keys of the subjects of the context's tenant; under the scope of the system, those of
    /// subjects that belong to no tenant. No I/O.
    fn subject_keys(&self, context: &RequestContext) -> SubjectKeys {
        SubjectKeys {
            store: self.key_store(),
            context: context.clone(),
        }
    }
}

/// The keys of the subjects of one tenant. Cheap to clone.
///
/// # Transaction
///
/// Keys are got and destroyed at once, on a connection of their own, outside of any unit of work. Get
/// them before the work writes: on SQLite, a new key waits for the unit of work that is open to write,
/// and in the end fails with [`PoolTimedOut`](crate::StoreErrorKind::PoolTimedOut) where that is one's
/// own. So does everything here where a store has one connection, as SQLite in memory, and one's own
/// transaction has it.
#[derive(Clone)]
pub struct SubjectKeys {
    store: Arc<dyn KeyStore>,
    context: RequestContext,
}

impl SubjectKeys {
    /// The key of a subject, to seal and open its values; a new one for a subject that has none. One
    /// statement where there is one, else two.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`](crate::Error::Domain) with [`Forgotten`] where the subject was: it gets no
    /// other key. [`Error::Store`](crate::Error::Store), and [`Error::Sealed`](crate::Error::Sealed)
    /// where the key cannot be read.
    ///
    /// # Cancel safety
    ///
    /// A key may be there or not; the next call gets it.
    pub async fn key(&self, subject: &Subject) -> Result<SubjectKey> {
        let tenant = self.context.scope().tenant();
        let found = self.store.find_or_make(tenant, subject);
        match found.instrument(self.context.span("subject keys")).await? {
            KeyState::Kept(secret) => Ok(SubjectKey::new(tenant.cloned(), subject.clone(), secret)),
            KeyState::Destroyed => Err(Forgotten::of(subject.clone()).into()),
            KeyState::Unreadable(reason) => Err(reason.into()),
        }
    }

    /// The keys of these subjects, to open their values: of all that was read, in one statement. None
    /// where there are no subjects. It makes no key. One that cannot be read is an error of the values
    /// under it, when they are [opened](KeyRing::open).
    ///
    /// # Errors
    ///
    /// [`Error::Store`](crate::Error::Store).
    pub async fn ring<'s>(
        &self,
        subjects: impl IntoIterator<Item = &'s Subject>,
    ) -> Result<KeyRing> {
        let subjects: HashSet<&Subject> = subjects.into_iter().collect();
        let subjects: Vec<Subject> = subjects.into_iter().cloned().collect();
        if subjects.is_empty() {
            return Ok(KeyRing::default());
        }
        let tenant = self.context.scope().tenant();
        let found = self.store.find(tenant, &subjects);
        let found = found.instrument(self.context.span("subject keys")).await?;
        Ok(KeyRing::new(tenant, found))
    }

    /// Forgets a subject: destroys its key, for good. Once this returns, nobody gets the key any
    /// more, in any process, and all that was sealed for the subject is [`Forgotten`] for whoever
    /// opens it. One statement. `false` where the subject was forgotten already: before, or by this
    /// call where the answer to its first try was lost. Do not make what follows depend on it.
    ///
    /// A subject that never had a key is forgotten as well, and gets none later.
    ///
    /// Nothing else changes: no event is written, and rows and events stay with the cipher text in
    /// them. What the domain has to say about it is a command of yours, after this.
    ///
    /// # Errors
    ///
    /// [`Error::Store`](crate::Error::Store); whether the key is there is not known then. To call it
    /// again does no harm.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the key may be there or not.
    pub async fn forget(&self, subject: &Subject) -> Result<bool> {
        let tenant = self.context.scope().tenant();
        let destroyed = self.store.destroy(tenant, subject, self.context.actor());
        destroyed
            .instrument(self.context.span("subject keys"))
            .await
    }
}

impl fmt::Debug for SubjectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKeys")
            .field("scope", self.context.scope())
            .finish_non_exhaustive()
    }
}
