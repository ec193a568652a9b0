//! Tests of text.

use std::borrow::Cow;

use super::operand::check_text;
use crate::mapping::{ColumnError, Value};

/// The longest pattern of `like`, in bytes. Databases limit how much they match.
const MAX_PATTERN: usize = 4096;

/// A type whose column holds text, so that conditions may look for parts of it.
///
/// `String` is one, and so is a newtype of `String` that derives
/// [`ValueObject`](derive@crate::ValueObject).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not text",
    label = "`like`, `starts_with`, `ends_with` and `contains` look for parts of text",
    note = "for a type of your own that is stored as text write `impl TextValue for {Self} {{}}`"
)]
pub trait TextValue {}

impl TextValue for String {}

/// How text is tested. Always by its bytes, so that case counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TextTest {
    /// Whether it matches a [pattern](LikeToken).
    Like,
    /// Whether it begins with a text.
    StartsWith,
    /// Whether it ends with a text.
    EndsWith,
    /// Whether a text is part of it.
    Contains,
}

/// A part of a pattern of `like`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LikeToken {
    /// `%`: any characters, also none.
    Any,
    /// `_`: one character, that is one Unicode scalar value.
    One,
    /// This character; also `%`, `_` and `\` behind a `\`.
    Literal(char),
}

impl LikeToken {
    /// The parts of a pattern. A `\` at its end, which a condition cannot have, stands for itself.
    pub fn parse(pattern: &str) -> impl Iterator<Item = Self> + '_ {
        let mut characters = pattern.chars();
        std::iter::from_fn(move || {
            Some(match characters.next()? {
                '%' => Self::Any,
                '_' => Self::One,
                '\\' => Self::Literal(characters.next().unwrap_or('\\')),
                other => Self::Literal(other),
            })
        })
    }
}

impl TextTest {
    /// The pattern of `like` that is true for the same texts.
    #[must_use]
    pub fn like_pattern(self, text: &str) -> Cow<'_, str> {
        Cow::Owned(match self {
            Self::Like => return Cow::Borrowed(text),
            Self::StartsWith => format!("{}%", escaped(text)),
            Self::EndsWith => format!("%{}", escaped(text)),
            Self::Contains => format!("%{}%", escaped(text)),
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Like => "like",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
            Self::Contains => "contains",
        }
    }

    /// Refuses what one of the databases could not look for.
    pub(super) fn check(self, text: String) -> Result<String, ColumnError> {
        if self != Self::Like {
            return match Value::Text(text).checked()? {
                Value::Text(text) => Ok(text),
                other => Err(ColumnError::invalid(format!("{other:?} is not text"))),
            };
        }
        check_text(&text, "a pattern of `like`")?;
        if text.len() > MAX_PATTERN {
            return Err(ColumnError::invalid(format!(
                "a pattern of `like` has at most {MAX_PATTERN} bytes, not {}",
                text.len()
            )));
        }
        let backslashes = text.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            return Err(ColumnError::invalid(
                "a pattern of `like` cannot end with a lone `\\`: write `\\\\` to look for one",
            ));
        }
        Ok(text)
    }

    /// Whether it is true for `text`.
    pub(super) fn holds(self, text: &str, wanted: &str) -> bool {
        match self {
            Self::Like => matches(text, &LikeToken::parse(wanted).collect::<Vec<_>>()),
            Self::StartsWith => text.starts_with(wanted),
            Self::EndsWith => text.ends_with(wanted),
            Self::Contains => text.contains(wanted),
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Whether a text matches. On a mismatch the last `%` takes one character more: those before it
/// need never be tried again.
fn matches(text: &str, tokens: &[LikeToken]) -> bool {
    let mut rest = text.chars();
    let mut at = 0;
    let mut retry = None;
    loop {
        let before = rest.clone();
        match (tokens.get(at), rest.next()) {
            (None, None) => return true,
            (Some(LikeToken::Any), _) => {
                at += 1;
                rest = before.clone();
                retry = Some((at, before));
                continue;
            }
            (Some(LikeToken::One), Some(_)) => {
                at += 1;
                continue;
            }
            (Some(LikeToken::Literal(wanted)), Some(found)) if *wanted == found => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let Some((from, skipped)) = &mut retry else {
            return false;
        };
        if skipped.next().is_none() {
            return false;
        }
        (at, rest) = (*from, skipped.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_characters_and_not_bytes() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("é", "_", true),
            ("e\u{301}", "_", false),
            ("e\u{301}", "__", true),
            ("😀!", "_!", true),
            ("Graz", "gr%", false),
            ("Graz", "Gr%", true),
            ("Graz", "%a%", true),
            ("Graz", "%a", false),
            ("aab", "%ab", true),
            ("abab", "%ab%b", true),
            ("aXbXc", "a%b%c%d", false),
            ("50%", "50\\%", true),
            ("50x", "50\\%", false),
            ("a_b", "a\\_b", true),
            ("a\\b", "a\\\\b", true),
            ("ab", "\\a\\b", true),
            ("a*b", "a*b", true),
            ("axb", "a*b", false),
        ] {
            assert_eq!(
                TextTest::Like.holds(text, pattern),
                expected,
                "{text} like {pattern}"
            );
        }
    }

    #[test]
    fn every_test_is_a_pattern() {
        for wanted in ["", "a%", "_", "\\", "é"] {
            for text in ["", "a%", "xa%y", "ab", "_", "\\", "a\\", "é"] {
                for test in [TextTest::StartsWith, TextTest::EndsWith, TextTest::Contains] {
                    assert_eq!(
                        test.holds(text, wanted),
                        TextTest::Like.holds(text, &test.like_pattern(wanted)),
                        "{text:?} {test:?} {wanted:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_no_database_could_look_for_is_refused() {
        for pattern in ["a\\", "\\\\\\", "\0", "\u{fffd}", "\u{ffff}%"] {
            assert!(
                TextTest::Like.check(pattern.to_owned()).is_err(),
                "{pattern:?}"
            );
        }
        assert!(TextTest::Like.check("%".repeat(MAX_PATTERN + 1)).is_err());
        assert!(TextTest::Like.check("a\\\\".to_owned()).is_ok());
        assert!(TextTest::Contains.check("\u{ffff}\\".to_owned()).is_ok());
        assert!(TextTest::Contains.check("a\0".to_owned()).is_err());
    }
}
