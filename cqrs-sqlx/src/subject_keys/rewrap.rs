//! The exchange of master keys: what is kept under a former one is put under the current one.

use std::sync::Arc;

use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::sealed::{MasterKeys, SealedError, StoredSecret, Subject};
use cqrs_core::{Error, RequestContext, Result, StoreErrorKind, TenantId, TenantScope};
use tracing::Instrument;

use super::{malformed, scope_name};
use crate::backend::{Backend, Parameter};
use crate::projector;
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::{Shared, SqlStore};
use crate::tenancy::{self, TenantSite};

/// How many keys are locked at once.
const BATCH: usize = 500;

/// What [`rewrap_subject_keys`](SqlStore::rewrap_subject_keys) has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrapped {
    /// How many keys it has put under the current master key.
    pub keys: u64,
    /// How many it could not read, and has left as they are.
    pub unreadable: u64,
    /// Why it could not read the first of these.
    pub reason: Option<SealedError>,
}

impl<B: Backend> SqlStore<B> {
    /// Puts the keys of subjects that are kept under former [`MasterKeys`], or in clear where these
    /// are read, under the current one: those of the context's tenant, and under the scope of the
    /// system those of all. What is sealed does not change, and everybody who has both master keys
    /// goes on working meanwhile.
    ///
    /// It goes through the keys once, in the order of tenants and subjects, and calls `progress` after
    /// each batch with what it has done so far. What is under the current master key already is not
    /// read, so to go on after an error, call it again. A process whose current master key is another
    /// one may add keys under that behind its back: when all have the new one, it is done where it
    /// finds neither [keys](Rewrapped::keys) nor [unreadable](Rewrapped::unreadable) ones.
    ///
    /// # Transaction
    ///
    /// Each batch is one, of some hundred keys. A subject that is forgotten meanwhile stays forgotten.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where the store has no master keys, or keeps the keys
    /// in a [`KeyStore`](cqrs_core::sealed::KeyStore) of the application;
    /// [`Store`](cqrs_core::Error::Store) where the store fails. Batches before the one that failed
    /// are done.
    ///
    /// # Cancel safety
    ///
    /// Whole batches are done, or not.
    pub async fn rewrap_subject_keys(
        &self,
        context: &RequestContext,
        progress: impl FnMut(&Rewrapped) + Send,
    ) -> Result<Rewrapped> {
        run(self.shared(), context.scope(), progress)
            .instrument(context.span("subject keys"))
            .await
    }
}

/// A key that is not under the current master key.
struct Kept {
    scope: String,
    subject: String,
    secret: Vec<u8>,
}

impl Kept {
    fn read<R: RowSource>(row: &R) -> Result<Self, ColumnError> {
        let none = || ColumnError::UnexpectedNull;
        Ok(Self {
            scope: row.read_text(0)?.ok_or_else(none)?.to_owned(),
            subject: row.read_text(1)?.ok_or_else(none)?.to_owned(),
            secret: row.read_bytes(2)?.ok_or_else(none)?.to_owned(),
        })
    }

    /// The same under the current master key; why not within.
    fn rewrapped(&self, keys: &MasterKeys) -> Result<Result<Vec<u8>, SealedError>> {
        let subject = Subject::new(self.subject.as_str())?;
        let tenant = match self.scope.as_str() {
            "" => None,
            name => Some(TenantId::new(name).map_err(Error::other)?),
        };
        let stored = StoredSecret {
            keys: Some(keys),
            tenant: tenant.as_ref(),
            subject: &subject,
        };
        Ok(match stored.read(&self.secret) {
            Ok(secret) => Ok(stored.write(&secret)?),
            Err(reason) => Err(reason),
        })
    }
}

async fn run<B: Backend>(
    shared: &Arc<Shared<B>>,
    scope: &TenantScope,
    mut progress: impl FnMut(&Rewrapped) + Send,
) -> Result<Rewrapped> {
    let keys = shared.master_keys.as_ref();
    let keys = keys.filter(|_| shared.key_store.is_none()).ok_or_else(|| {
        let message = "no keys of subjects are kept under master keys of this store";
        Error::store(StoreErrorKind::Usage, message)
    })?;
    let mut done = Rewrapped::default();
    let mut after = Some((String::new(), String::new()));
    while let Some(from) = after {
        let page = page(shared, scope, keys, from).await?;
        let whole = page.len() == BATCH;
        after = page
            .last()
            .filter(|_| whole)
            .map(|last| (last.scope.clone(), last.subject.clone()));
        let mut batch = Vec::with_capacity(page.len());
        for kept in page {
            match kept.rewrapped(keys)? {
                Ok(secret) => batch.push((kept, secret)),
                Err(reason) => {
                    done.unreadable += 1;
                    done.reason.get_or_insert(reason);
                }
            }
        }
        if !batch.is_empty() {
            let mut connection = projector::begin(shared).await?;
            let changed = replace::<B>(connection.get(), batch).await;
            done.keys += projector::end(connection, changed).await?;
        }
        progress(&done);
    }
    Ok(done)
}

/// The next keys that are not under the current master key.
async fn page<B: Backend>(
    shared: &Arc<Shared<B>>,
    scope: &TenantScope,
    keys: &MasterKeys,
    (after_scope, after_subject): (String, String),
) -> Result<Vec<Kept>> {
    let mut parameters = vec![
        bytes(keys.prefix().to_vec()),
        Parameter::text(after_scope),
        Parameter::text(after_subject),
    ];
    let mut in_scope = String::new();
    if let Some(tenant) = scope.tenant() {
        parameters.push(scope_name(Some(tenant)));
        let tenant = tenancy::equals(TenantSite::RewrappedKeys, "scope", "$4");
        in_scope = format!(" AND {tenant}");
    }
    let select = Select {
        sql: format!(
            "SELECT scope, subject, secret FROM cqrs_subject_key \
             WHERE secret IS NOT NULL AND substr(secret, 1, 5) <> $1 \
             AND (scope, subject) > ($2, $3){in_scope} ORDER BY scope, subject LIMIT {BATCH}"
        )
        .into(),
        parameters,
    };
    let place = Place::Confined(shared, scope);
    reads::rows(place, &select, None, |row: &B::Row| {
        Kept::read(row).map_err(malformed)
    })
    .await
}

/// Replaces secrets that are still what they were: a key that was destroyed stays so.
async fn replace<B: Backend>(
    connection: &mut B::Connection,
    batch: Vec<(Kept, Vec<u8>)>,
) -> Result<u64> {
    // By the key of a row that was found within the scope.
    let sql: Arc<str> = "UPDATE cqrs_subject_key SET secret = $1 \
                         WHERE (scope, subject, secret) = ($2, $3, $4)"
        .into();
    let mut replaced = 0;
    for (kept, secret) in batch {
        let parameters = [
            bytes(secret),
            Parameter::text(kept.scope),
            Parameter::text(kept.subject),
            bytes(kept.secret),
        ];
        replaced += B::execute(connection, &sql, &parameters).await?;
    }
    Ok(replaced)
}

fn bytes(bytes: Vec<u8>) -> Parameter {
    Parameter::new(ColumnType::Bytes, Value::Bytes(bytes))
}
