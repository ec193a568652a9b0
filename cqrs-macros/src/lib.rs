//! Derives of `cqrs-core`.
