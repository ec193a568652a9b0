//! What is asked of a cache.

use std::any::TypeId;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::context::{RequestContext, TenantId};
use crate::mapping::{Entity, Value};
use crate::specification::{CacheKey, PageRequest, encode_value};

/// A question about one table, within one tenant scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) table: &'static str,
    /// Two types may read one table.
    entity: TypeId,
    /// `None` is the system's: no tenant's question is equal to it.
    tenant: Option<TenantId>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Find(Vec<u8>),
    Query(CacheKey),
    Page(CacheKey, String),
    Count(CacheKey),
    Exists(CacheKey),
}

/// A question at a count of changes of its table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    question: Question,
    count: u64,
}

impl Question {
    fn new<T: Entity>(context: &RequestContext, kind: Kind) -> Self {
        Self {
            table: T::table().name(),
            entity: TypeId::of::<T>(),
            tenant: context.scope().tenant().cloned(),
            kind,
        }
    }

    pub(super) fn find<T: Entity>(context: &RequestContext, key: &[Value]) -> Self {
        let mut bytes = Vec::new();
        for value in key {
            encode_value(value, &mut bytes);
        }
        Self::new::<T>(context, Kind::Find(bytes))
    }

    pub(super) fn query<T: Entity>(context: &RequestContext, key: CacheKey) -> Self {
        Self::new::<T>(context, Kind::Query(key))
    }

    pub(super) fn page<T: Entity>(
        context: &RequestContext,
        key: CacheKey,
        request: &PageRequest,
    ) -> Self {
        // Its start, size and total, each told apart.
        Self::new::<T>(context, Kind::Page(key, format!("{request:?}")))
    }

    pub(super) fn count<T: Entity>(context: &RequestContext, key: CacheKey) -> Self {
        Self::new::<T>(context, Kind::Count(key))
    }

    pub(super) fn exists<T: Entity>(context: &RequestContext, key: CacheKey) -> Self {
        Self::new::<T>(context, Kind::Exists(key))
    }

    pub(super) fn at(self, count: u64) -> Key {
        Key {
            question: self,
            count,
        }
    }

    /// The question as a remote cache knows it: the tenant, and a hash of the question and of the
    /// columns that the type reads.
    pub(super) fn remote_key<T: Entity>(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"cqrs cached rows 1");
        for column in T::table().columns() {
            hash.update(format!("{:?}:{:?};", column.name(), column.column_type()));
        }
        match &self.kind {
            Kind::Find(key) => {
                hash.update(b"f");
                hash.update(key);
            }
            Kind::Query(key) => {
                hash.update(b"q");
                hash.update(key.as_bytes());
            }
            Kind::Page(key, request) => {
                hash.update(b"p");
                hash.update(key.as_bytes());
                hash.update(request);
            }
            Kind::Count(key) => {
                hash.update(b"c");
                hash.update(key.as_bytes());
            }
            Kind::Exists(key) => {
                hash.update(b"e");
                hash.update(key.as_bytes());
            }
        }
        let mut text = match &self.tenant {
            Some(tenant) => format!("tenant:{tenant}:"),
            None => "system:".to_owned(),
        };
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}
