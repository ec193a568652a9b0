//! The keys of sealed fields.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::context::TenantId;
use crate::error::Result;
use crate::sealed::{KeyState, KeyStore, SecretKey, Subject};
use crate::store::BoxFuture;

type Keys = HashMap<(Option<TenantId>, Subject), KeyState>;

/// A [`KeyStore`] in memory.
#[derive(Default)]
pub struct InMemoryKeyStore(Mutex<Keys>);

impl InMemoryKeyStore {
    /// One without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No code of the user runs under it.
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InMemoryKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryKeyStore").finish_non_exhaustive()
    }
}

impl KeyStore for InMemoryKeyStore {
    fn find<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<HashMap<Subject, KeyState>>> {
        Box::pin(async move {
            let keys = self.keys();
            let found = subjects.iter().filter_map(|subject| {
                let state = keys.get(&(tenant.cloned(), subject.clone()))?;
                Some((subject.clone(), state.clone()))
            });
            Ok(found.collect())
        })
    }

    fn find_or_make<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<KeyState>> {
        Box::pin(async move {
            let new = SecretKey::generate()?;
            let mut keys = self.keys();
            let state = keys.entry((tenant.cloned(), subject.clone()));
            Ok(state.or_insert(KeyState::Kept(new)).clone())
        })
    }

    fn destroy<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subject: &'a Subject,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let address = (tenant.cloned(), subject.clone());
            let before = self.keys().insert(address, KeyState::Destroyed);
            Ok(!matches!(before, Some(KeyState::Destroyed)))
        })
    }
}
