//! The words in which databases differ.

use cqrs_core::mapping::ColumnType;
use cqrs_core::{JsonPlace, TextTest};

use super::Parameters;

/// How the SQL that is shared by all databases differs in its words.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// Its name, as SQL of finders is given for it.
    pub(crate) name: &'static str,
    /// After a text column that is compared or sorted by its bytes.
    pub(crate) byte_order: &'static str,
    /// After the statement that claims a checkpoint: locks it, unless another has.
    pub(crate) claim: &'static str,
    /// Locks the rows of a table that have the numbers of a list, until the transaction ends; they
    /// need not exist. Empty where a transaction that writes has the database for itself.
    pub(crate) lock_rows: &'static str,
    /// After a query whose rows are locked until the transaction ends.
    pub(crate) lock: &'static str,
    /// After that, where rows that others have locked are left out.
    pub(crate) skip_locked: &'static str,
    /// Keeps others from adding to the log until the transaction ends. Empty where a transaction
    /// that writes has the database for itself.
    pub(crate) lock_log: &'static str,
    /// After the columns of a statement that begins a page: marks its transaction, for
    /// [`commit_and_begin`](super::Backed::commit_and_begin). Empty where [`mark`](super::Backed::mark) does.
    pub(crate) open_page: &'static str,
    /// Has what follows in a transaction fail where it would wait for a lock for long. Empty where a
    /// transaction that writes has the database for itself.
    pub(crate) hurry: &'static str,
    /// At the beginning of a transaction, has all its statements see one moment, at which these
    /// tables have their names, and keeps others from exchanging them. Empty where a transaction
    /// that writes has the database for itself.
    pub(crate) one_moment: fn(tables: &[&str]) -> String,
    /// Whether one statement can claim a checkpoint, move it, and read a page.
    pub(crate) claims_in_one: bool,
    /// The system column that has another value after each change of a row. Empty where rows have
    /// none.
    pub(crate) row_version: &'static str,
    /// After the columns that a statement returns: has the commit of its transaction not wait for the
    /// disk. Empty where nothing is [moved by its version](super::Backed::advance).
    pub(crate) without_flush: &'static str,
    /// Whether an aggregate, by its columns `aggregate_type` and `aggregate_id`, is of this segment
    /// of so many. The hash is the database's own, and of no meaning outside of it.
    pub(crate) in_segment: fn(segment: &str, segments: &str) -> String,
    /// Before an operand that is not to be looked up in an index. Empty where the planner knows better.
    pub(crate) unindexed: &'static str,
    /// The time now, of the database.
    pub(crate) now: &'static str,
    /// The type of a column.
    pub(crate) type_name: fn(ColumnType) -> &'static str,
    /// Whether an operand of this type is in the list that a parameter holds.
    pub(crate) in_list: fn(operand: &str, column_type: ColumnType, list: &str) -> String,
    /// Whether an operand is among what a query of one column selects. Of few, they are found by the
    /// index of the operand.
    pub(crate) in_rows: fn(operand: &str, query: &str) -> String,
    /// A test of an operand that is text.
    pub(crate) text_test:
        fn(operand: &str, test: TextTest, text: &str, parameters: &mut Parameters) -> String,
    /// What a place in the document of a column holds; NULL where it is of another kind.
    pub(crate) json: fn(column: &str, place: &JsonPlace, parameters: &mut Parameters) -> String,
    /// Whether a column differs from a parameter, where NULL is a value like any other.
    pub(crate) differs: fn(operand: &str, column_type: ColumnType, parameter: &str) -> String,
    /// After a statement that reads rows which are about to be changed.
    pub(crate) lock_to_change: &'static str,
    /// After a statement that reads rows which are about to be deleted.
    pub(crate) lock_to_delete: &'static str,
    /// The most parameters of one statement.
    pub(crate) max_parameters: usize,
}
