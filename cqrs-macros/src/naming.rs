//! Names: snake case, plain SQL identifiers, and suggestions for misspelt ones.

/// `RoutePlan` as `route_plan`, `HTTPServer` as `http_server`, `Stage2Done` as `stage2_done`.
pub(crate) fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, &char) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| chars.get(before));
        let word_starts = char.is_uppercase()
            && before.is_some_and(|before| {
                let word_goes_on = chars.get(index + 1).is_some_and(|next| next.is_lowercase());
                before.is_lowercase()
                    || before.is_numeric()
                    || (before.is_uppercase() && word_goes_on)
            });
        if word_starts {
            snake.push('_');
        }
        snake.extend(char.to_lowercase());
    }
    snake
}

/// The longest identifier that Postgres keeps whole.
const MAX_IDENTIFIER: usize = 63;

/// What a name of a table or a column must be, for messages.
pub(crate) const IDENTIFIER_RULE: &str =
    "1 to 63 characters of a-z, 0-9 and _, not starting with a digit";

/// Whether a name needs no quoting in any database.
pub(crate) fn is_sql_identifier(name: &str) -> bool {
    name.len() <= MAX_IDENTIFIER
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(is_identifier_char)
}

/// Whether a name can be the type of an aggregate in the log.
pub(crate) fn is_aggregate_type(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(is_identifier_char)
}

fn is_identifier_char(char: char) -> bool {
    char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_'
}

/// The name among `known` that was probably meant.
pub(crate) fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (at, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snake_case_splits_words_and_keeps_acronyms_together() {
        for (name, snake) in [
            ("Created", "created"),
            ("RoutePlan", "route_plan"),
            ("HTTPServer", "http_server"),
            ("PlanID", "plan_id"),
            ("Stage2Done", "stage2_done"),
            ("A", "a"),
            ("AB", "ab"),
            ("already_snake", "already_snake"),
            ("Größe", "größe"),
            ("", ""),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn sql_identifiers_need_no_quoting() {
        for good in ["a", "_a", "route_plan2", &"a".repeat(63)] {
            assert!(is_sql_identifier(good), "{good}");
        }
        for bad in [
            "",
            "1a",
            "Route",
            "a-b",
            "a.b",
            "größe",
            "a\"",
            &"a".repeat(64),
        ] {
            assert!(!is_sql_identifier(bad), "{bad}");
        }
    }

    #[test]
    fn aggregate_types_start_with_a_letter() {
        assert!(is_aggregate_type("route_plan"));
        for bad in ["", "_a", "1a", "a.b", "A"] {
            assert!(!is_aggregate_type(bad), "{bad}");
        }
    }

    #[test]
    fn the_closest_name_is_suggested_if_it_is_close() {
        let known = ["table", "tenant", "id"];
        assert_eq!(closest("tabel", &known), Some("table"));
        assert_eq!(closest("tenants", &known), Some("tenant"));
        assert_eq!(closest("colour", &known), None);
        assert_eq!(closest("x", &known), None);
    }
}
