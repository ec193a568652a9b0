//! The keys of sealed fields, in the table `cqrs_subject_key`.

mod rewrap;

pub use rewrap::Rewrapped;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::sealed::{
    KeyState, KeyStore, MasterKeys, Sealing, SecretKey, StoredSecret, Subject,
};
use cqrs_core::{BoxFuture, Error, Result, StoreErrorKind, TenantId, TenantScope};

use crate::backend::{Backend, Parameter};
use crate::projector::execute_within;
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::{Shared, SqlStore};
use crate::tenancy::{self, TenantSite};

/// The keys in the table `cqrs_subject_key` of a store.
pub(crate) struct InTable<B: Backend> {
    shared: Arc<Shared<B>>,
}

impl<B: Backend> Sealing for SqlStore<B> {
    fn key_store(&self) -> Arc<dyn KeyStore> {
        match &self.shared().key_store {
            Some(keys) => Arc::clone(keys),
            None => Arc::new(InTable {
                shared: Arc::clone(self.shared()),
            }),
        }
    }
}

impl<B: Backend> fmt::Debug for InTable<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InTable").finish_non_exhaustive()
    }
}

/// No tenant has the name of those that belong to none.
fn scope_name(tenant: Option<&TenantId>) -> Parameter {
    Parameter::text(tenant.map_or("", TenantId::as_str))
}

fn scope_of(tenant: Option<&TenantId>) -> TenantScope {
    tenant.map_or(TenantScope::System, |tenant| {
        TenantScope::Tenant(tenant.clone())
    })
}

fn malformed(cause: ColumnError) -> Error {
    let message = format!("table cqrs_subject_key: {cause}");
    Error::store(StoreErrorKind::Schema, message)
}

/// Reads a row of a subject and a secret.
fn read<R: RowSource>(
    row: &R,
    keys: Option<&MasterKeys>,
    tenant: Option<&TenantId>,
) -> Result<(Subject, KeyState)> {
    let subject = row.read_text(0).map_err(malformed)?;
    let subject = Subject::new(subject.unwrap_or_default())?;
    let state = match row.read_bytes(1).map_err(malformed)? {
        None => KeyState::Destroyed,
        Some(bytes) => {
            let stored = StoredSecret {
                keys,
                tenant,
                subject: &subject,
            };
            stored
                .read(bytes)
                .map_or_else(KeyState::Unreadable, KeyState::Kept)
        }
    };
    Ok((subject, state))
}

impl<B: Backend> InTable<B> {
    fn master_keys(&self) -> Option<&MasterKeys> {
        self.shared.master_keys.as_ref()
    }

    async fn select(
        &self,
        tenant: Option<&TenantId>,
        subjects: &[Subject],
    ) -> Result<HashMap<Subject, KeyState>> {
        let texts = subjects.iter().map(Subject::as_str);
        let texts = texts.map(|subject| Value::Text(subject.to_owned()));
        let in_scope = tenancy::equals(TenantSite::SubjectKey, "scope", "$1");
        let in_list = (B::DIALECT.in_list)("subject", ColumnType::Text, "$2");
        let select = Select {
            sql: format!(
                "SELECT subject, secret FROM cqrs_subject_key WHERE {in_scope} AND {in_list}"
            )
            .into(),
            parameters: vec![
                scope_name(tenant),
                Parameter::List(ColumnType::Text, texts.collect()),
            ],
        };
        let scope = scope_of(tenant);
        let place = Place::Confined(&self.shared, &scope);
        let keys = self.master_keys();
        let rows = reads::rows(place, &select, None, |row: &B::Row| read(row, keys, tenant));
        Ok(rows.await?.into_iter().collect())
    }

    async fn select_one(
        &self,
        tenant: Option<&TenantId>,
        subject: &Subject,
    ) -> Result<Option<KeyState>> {
        let mut found = self.select(tenant, std::slice::from_ref(subject)).await?;
        Ok(found.remove(subject))
    }

    /// Keeps a new key; `false` where there is a row for the subject by now.
    async fn insert(
        &self,
        tenant: Option<&TenantId>,
        subject: &Subject,
        secret: &SecretKey,
    ) -> Result<bool> {
        let stored = StoredSecret {
            keys: self.master_keys(),
            tenant,
            subject,
        };
        let sql = format!(
            "INSERT INTO cqrs_subject_key (scope, subject, secret, created_at) \
             VALUES ($1, $2, $3, {}) ON CONFLICT (scope, subject) DO NOTHING",
            B::DIALECT.now
        );
        let parameters = [
            scope_name(tenant),
            Parameter::text(subject.as_str()),
            Parameter::new(ColumnType::Bytes, Value::Bytes(stored.write(secret)?)),
        ];
        let scope = scope_of(tenant);
        let inserted = execute_within(&self.shared, &scope, &sql.into(), &parameters).await?;
        Ok(inserted > 0)
    }
}

impl<B: Backend> KeyStore for InTable<B> {
    fn find<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<HashMap<Subject, KeyState>>> {
        Box::pin(self.select(tenant, subjects))
    }

    fn find_or_make<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<KeyState>> {
        Box::pin(async move {
            if let Some(state) = self.select_one(tenant, subject).await? {
                return Ok(state);
            }
            let secret = SecretKey::generate()?;
            if self.insert(tenant, subject, &secret).await? {
                return Ok(KeyState::Kept(secret));
            }
            // Someone else was faster, or the answer to the first of two inserts was lost.
            let state = self.select_one(tenant, subject).await?;
            state.ok_or_else(|| {
                let message = format!("table cqrs_subject_key: the row of {subject} was deleted");
                Error::store(StoreErrorKind::Contention, message)
            })
        })
    }

    fn destroy<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        subject: &'a Subject,
        by: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let now = B::DIALECT.now;
            let sql = format!(
                "INSERT INTO cqrs_subject_key \
                 (scope, subject, secret, created_at, forgotten_at, forgotten_by) \
                 VALUES ($1, $2, NULL, {now}, {now}, $3) \
                 ON CONFLICT (scope, subject) DO UPDATE SET secret = NULL, \
                 forgotten_at = excluded.forgotten_at, forgotten_by = excluded.forgotten_by \
                 WHERE cqrs_subject_key.forgotten_at IS NULL"
            );
            let by = by.map_or(Value::Null, |by| Value::Text(by.to_owned()));
            let by = by.checked().map_err(Error::other)?;
            let parameters = [
                scope_name(tenant),
                Parameter::text(subject.as_str()),
                Parameter::new(ColumnType::Text, by),
            ];
            let scope = scope_of(tenant);
            let changed = execute_within(&self.shared, &scope, &sql.into(), &parameters).await?;
            Ok(changed > 0)
        })
    }
}
