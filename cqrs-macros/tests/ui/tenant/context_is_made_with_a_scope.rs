use cqrs_core::{Metadata, RequestContext};

fn without_scope(metadata: Metadata) -> RequestContext {
    RequestContext { metadata }
}

fn with_no_argument() -> RequestContext {
    RequestContext::new()
}

fn main() {}
