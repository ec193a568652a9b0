//! Conditions over the fields of an aggregate or a read model: one typed tree, evaluated in
//! memory and compiled to SQL, with the same answer.

mod cache_key;
mod describe;
mod evaluate;
mod field;
mod json;
mod operand;
mod predicate;
mod query;
mod text;

pub use cache_key::CacheKey;
pub use field::{Field, Place};
pub use json::{JsonPath, JsonValue};
pub use operand::{JsonLeaf, JsonPlace, JsonStep, Operand};
pub use predicate::{Comparison, Predicate, Specification};
pub use query::{Direction, Order, Query};
pub use text::{LikeToken, TextTest, TextValue};
