//! Conditions over the fields of an aggregate or a read model: one typed tree, evaluated in
//! memory and compiled to SQL, with the same answer.

mod evaluate;
mod field;
mod predicate;
mod query;

pub use field::Field;
pub use predicate::{Comparison, Predicate, Specification};
pub use query::{Direction, Order, Query};
