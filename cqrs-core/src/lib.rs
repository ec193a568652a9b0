//! Domain-driven design with CQRS.
