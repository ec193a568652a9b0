//! CQRS on sqlx.
