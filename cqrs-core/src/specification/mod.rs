//! Conditions over the fields of an aggregate or a read model: one typed tree, evaluated in
//! memory and compiled to SQL, with the same answer.

mod cursor;
mod evaluate;
mod field;
mod page;
mod predicate;
mod query;

pub use cursor::Cursor;
pub use field::Field;
pub use page::{Page, PageRequest, Paging};
pub use predicate::{Comparison, Predicate, Specification};
pub use query::{Direction, Order, Query, SortKey};
