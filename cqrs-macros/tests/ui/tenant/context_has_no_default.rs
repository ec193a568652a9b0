use cqrs_core::{RequestContext, TenantScope};

fn context() -> RequestContext {
    RequestContext::default()
}

fn scope() -> TenantScope {
    TenantScope::default()
}

fn main() {}
