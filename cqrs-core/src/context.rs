//! Who asks, for whom, and why: what every read and write carries.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The tenant that owns an aggregate.
///
/// Any non-empty text up to 255 bytes without NUL characters.
///
/// # Example
///
/// ```
/// use cqrs_core::TenantId;
///
/// let tenant: TenantId = "north".parse()?;
/// assert_eq!(tenant.as_str(), "north");
/// assert!("".parse::<TenantId>().is_err());
/// # Ok::<(), cqrs_core::InvalidTenantId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

/// Text that cannot name a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant id is 1 to 255 bytes of text without NUL, not {0:?}")]
pub struct InvalidTenantId(String);

impl TenantId {
    /// The tenant of this name.
    ///
    /// # Errors
    ///
    /// [`InvalidTenantId`] where the text is empty, above 255 bytes, or holds a NUL character.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidTenantId> {
        let id = id.as_ref();
        if id.is_empty() || id.len() > 255 || id.contains('\0') {
            return Err(InvalidTenantId(id.to_owned()));
        }
        Ok(Self(id.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl TryFrom<String> for TenantId {
    type Error = InvalidTenantId;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({:?})", &self.0)
    }
}

/// Whose rows a unit of work may see and change.
///
/// There is no default: every [`RequestContext`] is made with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantScope {
    /// The rows of one tenant. Those of any other do not exist.
    Tenant(TenantId),
    /// The rows of every tenant, for work of the system itself. Visible in the trace.
    System,
}

impl TenantScope {
    /// The tenant, unless this is [`System`](Self::System).
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::System => None,
        }
    }

    /// Whether rows of `owner` are within this scope. `None` is a row that belongs to no tenant.
    #[must_use]
    pub fn admits(&self, owner: Option<&TenantId>) -> bool {
        match (self, owner) {
            (Self::System, _) | (_, None) => true,
            (Self::Tenant(tenant), Some(owner)) => tenant == owner,
        }
    }
}

impl fmt::Display for TenantScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => tenant.fmt(f),
            Self::System => f.write_str("<system>"),
        }
    }
}

/// A W3C trace context (`traceparent` and `tracestate`), carried from the command into its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: String,
    /// The `tracestate` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// What a command or query carries besides its own data: the tenant scope, who asks, and how it
/// belongs to other work.
///
/// Without one there is no unit of work, and so no read and no write; and none exists without a
/// [`TenantScope`].
///
/// # Example
///
/// ```
/// use cqrs_core::{RequestContext, TenantId};
///
/// let context = RequestContext::tenant(TenantId::new("north")?).with_actor("dispatcher@north");
/// assert_eq!(context.actor(), Some("dispatcher@north"));
/// # Ok::<(), cqrs_core::InvalidTenantId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestContext {
    scope: TenantScope,
    metadata: Metadata,
}

/// Where an event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Shared by everything that one request set off.
    pub correlation_id: Uuid,
    /// The event or message that caused this one.
    pub causation_id: Option<Uuid>,
    /// Who acted.
    pub actor: Option<String>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
}

impl RequestContext {
    /// A context with this scope and a new correlation id.
    #[must_use]
    pub fn new(scope: TenantScope) -> Self {
        Self {
            scope,
            metadata: Metadata {
                correlation_id: Uuid::now_v7(),
                causation_id: None,
                actor: None,
                trace: None,
            },
        }
    }

    /// A context within one tenant.
    #[must_use]
    pub fn tenant(tenant: TenantId) -> Self {
        Self::new(TenantScope::Tenant(tenant))
    }

    /// A context across all tenants; also the one of applications that have no tenants.
    #[must_use]
    pub fn system() -> Self {
        Self::new(TenantScope::System)
    }

    /// Says who acts; goes into events and audit columns.
    #[must_use]
    pub fn with_actor(mut self, actor: impl Into<String>) -> Self {
        self.metadata.actor = Some(actor.into());
        self
    }

    /// Continues the work with this correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: Uuid) -> Self {
        self.metadata.correlation_id = id;
        self
    }

    /// Names the event or message that caused this work.
    #[must_use]
    pub fn with_causation_id(mut self, id: Uuid) -> Self {
        self.metadata.causation_id = Some(id);
        self
    }

    /// Continues this trace.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceContext) -> Self {
        self.metadata.trace = Some(trace);
        self
    }

    /// The span of work in this context: its `work`, the `tenant` and the `actor`. Work across all
    /// tenants says so with `system = true`, one level above the other.
    ///
    /// For authors of backends: units of work, read models and reads of the log run in it.
    #[must_use]
    pub fn span(&self, work: &'static str) -> tracing::Span {
        let actor = self.actor();
        match &self.scope {
            TenantScope::Tenant(tenant) => {
                tracing::debug_span!("cqrs", work, tenant = tenant.as_str(), actor)
            }
            TenantScope::System => tracing::info_span!("cqrs", work, system = true, actor),
        }
    }

    /// Whose rows are within reach.
    #[must_use]
    pub fn scope(&self) -> &TenantScope {
        &self.scope
    }

    /// Who acts.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.metadata.actor.as_deref()
    }

    /// What the events of this work will say about where they come from.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}
