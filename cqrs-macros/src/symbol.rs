//! Every attribute name, once.

pub(crate) const AGGREGATE: &str = "aggregate";
pub(crate) const EVENT: &str = "event";
pub(crate) const FIND: &str = "find";
pub(crate) const MAPPER: &str = "mapper";
pub(crate) const READ_MODEL: &str = "read_model";
pub(crate) const RECORD: &str = "record";
pub(crate) const SERDE: &str = "serde";
pub(crate) const VALUE_OBJECT: &str = "value_object";

pub(crate) const AS: &str = "as";
pub(crate) const AUDIT: &str = "audit";
pub(crate) const COLUMN: &str = "column";
pub(crate) const CRATE: &str = "crate";
pub(crate) const FLATTEN: &str = "flatten";
pub(crate) const ID: &str = "id";
pub(crate) const JSON: &str = "json";
pub(crate) const KEY: &str = "key";
pub(crate) const LIMIT: &str = "limit";
pub(crate) const LOCK: &str = "lock";
pub(crate) const NAME: &str = "name";
pub(crate) const ONE: &str = "one";
pub(crate) const ORDER_BY: &str = "order_by";
pub(crate) const PREFIX: &str = "prefix";
pub(crate) const ROOT: &str = "root";
pub(crate) const ROW: &str = "row";
pub(crate) const SKIP_LOCKED: &str = "skip_locked";
pub(crate) const SOFT_DELETE: &str = "soft_delete";
pub(crate) const SPECIFICATION: &str = "specification";
pub(crate) const TABLE: &str = "table";
pub(crate) const TENANT: &str = "tenant";
pub(crate) const TEXT: &str = "text";
pub(crate) const VERSION: &str = "version";
pub(crate) const WITH: &str = "with";
