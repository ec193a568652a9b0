//! Conditions over the fields of an aggregate or a read model: one typed tree, evaluated in
//! memory and compiled to SQL, with the same answer.

mod assignment;
mod cache_key;
mod children;
mod cursor;
mod describe;
mod evaluate;
mod field;
mod json;
mod operand;
mod page;
mod predicate;
mod query;
mod text;
mod versions;

pub use assignment::Assignment;
pub use cache_key::CacheKey;
pub use children::Children;
pub use cursor::Cursor;
#[cfg(feature = "cache")]
pub(crate) use cursor::decode_value;
pub(crate) use cursor::encode_value;
pub use field::{Field, Place};
pub use json::{JsonPath, JsonValue};
pub use operand::{JsonLeaf, JsonPlace, JsonStep, Operand};
pub use page::{Page, PageRequest, Paging};
pub use predicate::{Comparison, Predicate, Specification};
pub use query::{Direction, Order, Query, RowLock, SortKey};
pub use text::{LikeToken, TextTest, TextValue};
pub use versions::VersionPaging;
