//! Conditions in the words of SQLite.

use std::fmt::Write;

use cqrs_core::mapping::{ColumnType, Value};
use cqrs_core::{JsonLeaf, JsonPlace, LikeToken, TextTest};

use super::bind::timestamp;
use crate::backend::{Parameter, Parameters, json_path};

/// The list is one JSON array, so that the text does not depend on its length. See [`list_json`].
pub(super) fn in_list(operand: &str, column_type: ColumnType, list: &str) -> String {
    let element = match column_type {
        ColumnType::Bytes | ColumnType::Uuid => "unhex(value)",
        ColumnType::Float32 | ColumnType::Float64 => {
            "(value ->> 0) * (value ->> 1) * (value ->> 1) * (value ->> 1) * (value ->> 1) \
             * (value ->> 2)"
        }
        _ => "value",
    };
    format!("{operand} IN (SELECT {element} FROM json_each({list}))")
}

pub(super) fn in_rows(operand: &str, query: &str) -> String {
    format!("{operand} IN ({query})")
}

/// There is no hash function, so this is one in SQL: a polynomial over the characters of type and
/// id, modulo a prime below 2^31, so that no step leaves 64 bits.
pub(super) fn in_segment(segment: &str, segments: &str) -> String {
    format!(
        "(WITH RECURSIVE step(hash, rest) AS (\
         SELECT 0, aggregate_type || ' ' || aggregate_id UNION ALL \
         SELECT (hash * 8191 + unicode(rest)) % 2147483647, substr(rest, 2) \
         FROM step WHERE rest <> '') \
         SELECT hash FROM step WHERE rest = '') % {segments} = {segment}"
    )
}

/// The array that [`in_list`] reads: values as a column stores them, bytes in hexadecimal, and
/// floats as [`factors`].
pub(super) fn list_json(values: &[Value]) -> String {
    serde_json::Value::Array(values.iter().map(element).collect()).to_string()
}

fn element(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => i64::from(*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => factors(*value).as_slice().into(),
        Value::Text(value) | Value::Json(value) => value.as_str().into(),
        Value::Bytes(value) => hexadecimal(value).into(),
        Value::Uuid(value) => hexadecimal(value.as_bytes()).into(),
        Value::Timestamp(value) => timestamp(*value).into(),
        Value::Date(value) => value.format("%Y-%m-%d").to_string().into(),
        _ => serde_json::Value::Null,
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

/// `[m, p, r]` for a float that is `m * p * p * p * p * r`: an integer and powers of two, of a size
/// that SQLite reads exactly. Of decimal fractions near to zero it reads every fourth wrong.
fn factors(float: f64) -> [f64; 3] {
    if float.is_infinite() {
        // The product overflows.
        return [float.signum(), 1e100, 1.0];
    }
    const FRACTION: u64 = (1 << 52) - 1;
    let bits = float.abs().to_bits();
    let (mantissa, exponent) = match bits >> 52 {
        0 => (bits, -1074),
        exponent => (bits & FRACTION | 1 << 52, exponent as i32 - 1075),
    };
    let part = exponent / 5;
    [
        (mantissa as f64).copysign(float),
        2_f64.powi(part),
        2_f64.powi(exponent - 4 * part),
    ]
}

/// `LIKE` would take `a` for `A`; `GLOB` does not, and is else the same with other signs. The
/// other tests compare texts as a whole, which `GLOB` does not do exactly for three characters.
pub(super) fn text_test(
    operand: &str,
    test: TextTest,
    text: &str,
    parameters: &mut Parameters,
) -> String {
    if test == TextTest::Like {
        let pattern = parameters.add(Parameter::text(glob(text)));
        return format!("{operand} GLOB {pattern}");
    }
    let wanted = parameters.add(Parameter::text(text));
    match test {
        TextTest::StartsWith => {
            let end = parameters.add(end_of_prefix(text));
            let operand = format!("{operand} COLLATE BINARY");
            format!("({operand} >= {wanted} AND {operand} < {end})")
        }
        TextTest::EndsWith => {
            let from = format!("length({operand}) - length({wanted}) + 1");
            format!("substr({operand}, {from}) = {wanted}")
        }
        TextTest::Contains => format!("instr({operand}, {wanted}) > 0"),
        other => unreachable!("a test this backend does not know: {other:?}"),
    }
}

fn glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for token in LikeToken::parse(pattern) {
        match token {
            LikeToken::Any => glob.push('*'),
            LikeToken::One => glob.push('?'),
            LikeToken::Literal(special @ ('*' | '?' | '[')) => glob.extend(['[', special, ']']),
            LikeToken::Literal(character) => glob.push(character),
        }
    }
    glob
}

/// The first text behind all that begin with this one; where there is none, an empty blob, which
/// sorts behind every text.
fn end_of_prefix(prefix: &str) -> Parameter {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Parameter::text(end);
        }
    }
    Parameter::new(ColumnType::Bytes, Value::Bytes(Vec::new()))
}

/// `json_type` and `json_extract` say what is there without ever failing; documents are valid, as
/// the framework writes them.
pub(super) fn json(column: &str, place: &JsonPlace, parameters: &mut Parameters) -> String {
    let path = parameters.add(Parameter::text(json_path::steps(place)));
    let kind = format!("json_type({column}, {path})");
    let found = format!("json_extract({column}, {path})");
    let is_number = format!("{kind} IN ('integer', 'real')");
    match place.leaf() {
        JsonLeaf::Null => format!("(CASE {kind} WHEN 'null' THEN 1 END)"),
        JsonLeaf::Text => format!("(CASE {kind} WHEN 'text' THEN {found} END)"),
        JsonLeaf::Integer => format!(
            "(CASE WHEN {is_number} AND {found} BETWEEN -9007199254740991 AND 9007199254740991 \
             AND {found} = CAST({found} AS integer) THEN CAST({found} AS integer) END)"
        ),
        JsonLeaf::Float => format!(
            "(CASE WHEN {is_number} AND ({found} = 0 \
             OR abs(CAST({found} AS real)) BETWEEN 1e-80 AND 9007199254740991) \
             THEN CAST({found} AS real) END)"
        ),
        JsonLeaf::Bool => format!("(CASE {kind} WHEN 'true' THEN 1 WHEN 'false' THEN 0 END)"),
        _ => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_the_product_of_its_factors() {
        for float in [
            0.0,
            -0.0,
            1.0,
            -0.1,
            5e-324,
            -1e-310,
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::MIN,
            f64::EPSILON,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ] {
            let [m, p, r] = factors(float);
            assert_eq!(
                (m * p * p * p * p * r).to_bits(),
                float.to_bits(),
                "{float:e}"
            );
            for factor in [p, r] {
                assert!((1e-80..=1e100).contains(&factor), "{float:e}: {factor:e}");
            }
        }
    }

    #[test]
    fn patterns_become_globs() {
        assert_eq!(glob(r"a%_\\%[*?]"), r"a*?\*[[][*][?]]");
    }

    #[test]
    fn a_prefix_ends_where_the_next_character_begins() {
        let text = Parameter::text;
        let open = Parameter::new(ColumnType::Bytes, Value::Bytes(Vec::new()));
        assert_eq!(end_of_prefix("ab"), text("ac"));
        assert_eq!(end_of_prefix("\u{d7ff}"), text("\u{e000}"));
        assert_eq!(end_of_prefix("a\u{10ffff}"), text("b"));
        assert_eq!(end_of_prefix("\u{10ffff}"), open);
        assert_eq!(end_of_prefix(""), open);
    }
}
