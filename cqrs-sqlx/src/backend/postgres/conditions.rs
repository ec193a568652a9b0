//! Conditions in the words of Postgres.

use cqrs_core::mapping::ColumnType;
use cqrs_core::{JsonLeaf, JsonPlace, TextTest};

use crate::backend::{Parameter, Parameters, json_path};

/// One array, so that the text does not depend on the length of the list.
pub(super) fn in_list(operand: &str, _: ColumnType, list: &str) -> String {
    format!("{operand} = ANY({list})")
}

/// As an array, which the planner takes for ten values and looks up in an index; of a query in `IN`
/// it makes a join, for which it may read the whole table.
pub(super) fn in_rows(operand: &str, query: &str) -> String {
    format!("{operand} = ANY(ARRAY({query}))")
}

/// The hash of the server's own hash partitions; it is the same for equal text in every database
/// with this encoding.
pub(super) fn in_segment(segment: &str, segments: &str) -> String {
    format!(
        "(hashtextextended(aggregate_id, hashtext(aggregate_type)) & 9223372036854775807) \
         % {segments} = {segment}"
    )
}

/// Every test is a pattern, whose escape character is `\` here as it is in Postgres, whatever the
/// settings. The planner turns the beginning of a pattern into a range of an index with the `C`
/// collation, as it plans a statement anew for its values as long as that pays.
pub(super) fn text_test(
    operand: &str,
    test: TextTest,
    text: &str,
    parameters: &mut Parameters,
) -> String {
    let pattern = parameters.add(Parameter::text(test.like_pattern(text)));
    format!("{operand} COLLATE \"C\" LIKE {pattern}")
}

/// The path is a value, and the filter behind it lets only what the leaf reads pass, so that no
/// cast can fail. It is strict, as else `$[0]` of what is no array would be the thing itself; being
/// silent makes NULL of what is missing.
pub(super) fn json(column: &str, place: &JsonPlace, parameters: &mut Parameters) -> String {
    let path = parameters.add(Parameter::text(path(place)));
    let found = format!("jsonb_path_query_first({column}, {path}::jsonpath, '{{}}', true)");
    match place.leaf() {
        JsonLeaf::Text => format!("({found} #>> '{{}}')"),
        JsonLeaf::Integer => format!("({found}::int8)"),
        JsonLeaf::Float => format!("({found}::float8)"),
        JsonLeaf::Bool => format!("({found}::bool)"),
        _ => found,
    }
}

/// `strict $."sizes"[0] ? (@.type() == "string")`.
fn path(place: &JsonPlace) -> String {
    let mut path = format!("strict {}", json_path::steps(place));
    path.push_str(match place.leaf() {
        JsonLeaf::Null => " ? (@ == null)",
        JsonLeaf::Text => " ? (@.type() == \"string\")",
        JsonLeaf::Integer => {
            " ? (@.type() == \"number\" && @.abs() <= 9007199254740991 && @ % 1 == 0)"
        }
        JsonLeaf::Float => {
            " ? (@.type() == \"number\" && @.abs() <= 9007199254740991 \
              && (@ == 0 || @.abs() >= 1e-80))"
        }
        JsonLeaf::Bool => " ? (@.type() == \"boolean\")",
        _ => "",
    });
    path
}
