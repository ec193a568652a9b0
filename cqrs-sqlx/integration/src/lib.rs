//! Support for the tests of `cqrs-sqlx`.
