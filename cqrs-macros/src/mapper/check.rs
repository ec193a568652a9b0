//! The rules between the columns of one table.

use super::MappedField;
use crate::errors::Errors;

/// Reports columns with one name. Those of flattened value objects are not known here; the table
/// looks at them when it is built.
pub(crate) fn check_columns(fields: &[MappedField], errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for field in fields {
        let Some((column, span)) = field.column() else {
            continue;
        };
        if seen.contains(&column) {
            errors.push(syn::Error::new(
                span,
                format!("a second column named {column:?}: rename one with `#[mapper(column = \"...\")]`"),
            ));
        }
        seen.push(column);
    }
}
