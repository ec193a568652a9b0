//! Projections that run in the transaction of each commit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::projection::Projection;
use crate::staging::StagedWrite;
use crate::subscription::Subscription;

/// The projections of a store that run inline, and the names of those that do not. For authors of
/// backends: users call [`Store::inline`](crate::Store::inline).
pub struct InlineProjections<T> {
    registered: Mutex<Inline<T>>,
    subscribed: Arc<Mutex<HashMap<String, usize>>>,
}

/// The projections that run inline, by name. A unit of work takes them when it begins, so that
/// one that is registered meanwhile sees all of its events or none.
pub struct Inline<T>(Arc<[Arc<Subscription<T>>]>);

/// A name that a projector uses, as long as this lives.
#[derive(Debug)]
pub struct SubscribedName {
    name: String,
    subscribed: Arc<Mutex<HashMap<String, usize>>>,
}

impl<T> Default for InlineProjections<T> {
    fn default() -> Self {
        Self {
            registered: Mutex::new(Inline(Arc::new([]))),
            subscribed: Arc::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> InlineProjections<T> {
    /// Registers a projection.
    ///
    /// # Errors
    ///
    /// As [`Store::inline`](crate::Store::inline).
    pub fn add(&self, projection: impl Projection<T>) -> Result<()> {
        let added = Subscription::new(projection);
        let mut registered = lock(&self.registered);
        // Under the lock of the others, so that only one of two that come at once gets the name.
        if lock(&self.subscribed).contains_key(added.name()) {
            return Err(used_both_ways(added.name()));
        }
        if registered.find(added.name()).is_some() {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!("two inline projections are named {:?}", added.name()),
            ));
        }
        let mut all: Vec<_> = registered.0.iter().cloned().collect();
        all.push(Arc::new(added));
        // Every process locks the rows of several projections in the same order.
        all.sort_by(|a, b| a.name().cmp(b.name()));
        registered.0 = all.into();
        Ok(())
    }

    /// Takes a name for a projection that is not inline.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where an inline one has it.
    pub fn subscribe(&self, name: &str) -> Result<SubscribedName> {
        let registered = lock(&self.registered);
        if registered.find(name).is_some() {
            return Err(used_both_ways(name));
        }
        let mut subscribed = lock(&self.subscribed);
        *subscribed.entry(name.to_owned()).or_default() += 1;
        Ok(SubscribedName {
            name: name.to_owned(),
            subscribed: Arc::clone(&self.subscribed),
        })
    }

    /// Whether a projector uses this name now.
    #[must_use]
    pub fn is_subscribed(&self, name: &str) -> bool {
        lock(&self.subscribed).contains_key(name)
    }

    /// Those registered now.
    #[must_use]
    pub fn current(&self) -> Inline<T> {
        lock(&self.registered).clone()
    }
}

fn used_both_ways(name: &str) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!(
            "projection {name:?} is registered inline and with a projector: each event would be \
             applied twice"
        ),
    )
}

impl Drop for SubscribedName {
    fn drop(&mut self) {
        let mut subscribed = lock(&self.subscribed);
        if let Some(users) = subscribed.get_mut(&self.name) {
            *users -= 1;
            if *users == 0 {
                subscribed.remove(&self.name);
            }
        }
    }
}

impl<T> Inline<T> {
    fn find(&self, name: &str) -> Option<&Arc<Subscription<T>>>
    where
        T: Send + 'static,
    {
        self.0.iter().find(|projection| projection.name() == name)
    }
}

impl<T: Send + 'static> Inline<T> {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether any of them reads events of these writes.
    #[must_use]
    pub fn reads(&self, writes: &[StagedWrite]) -> bool {
        let types = |write: &StagedWrite| self.reads_type(write.aggregate_type);
        writes.iter().any(types)
    }

    /// Whether any of them reads events of this aggregate type.
    #[must_use]
    pub fn reads_type(&self, aggregate_type: &str) -> bool {
        self.0.iter().any(|one| one.reads(aggregate_type))
    }

    /// Applies the events of a commit, in the order of the log, to all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Projection`] with the name of the first that fails.
    pub async fn apply(&self, events: &[Envelope<RawPayload>], transaction: &mut T) -> Result<()> {
        for projection in self.0.iter() {
            let page: Vec<_> = events
                .iter()
                .filter(|event| projection.reads(event.aggregate_type()))
                .cloned()
                .collect();
            if page.is_empty() {
                continue;
            }
            let applied = projection.apply(&page, Position::START, transaction).await;
            applied.map_err(|cause| Error::Projection {
                name: projection.name().to_owned(),
                cause: Box::new(cause),
            })?;
        }
        Ok(())
    }
}

impl<T> Clone for Inline<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Inline<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl<T> fmt::Debug for InlineProjections<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineProjections")
            .field("registered", &*lock(&self.registered))
            .field("subscribed", &*lock(&self.subscribed))
            .finish()
    }
}
