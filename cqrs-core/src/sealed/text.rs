//! The text of a sealed value, as JSON and rows hold it: `sealed:1:<base64url>:<subject>`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::cipher::OVERHEAD;
use super::subject::Subject;
use super::value::Sealed;

/// The 1 is that of the cipher.
const PREFIX: &str = "sealed:1:";

/// Text that is no sealed value. It is not shown: it may be what should have been sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no sealed value: it does not have the form sealed:1:<base64url>:<subject>")]
#[non_exhaustive]
pub struct NotSealed;

/// The cipher text, as it is stored.
impl<T> fmt::Display for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = Base64Display::new(self.content(), &URL_SAFE_NO_PAD);
        write!(f, "{PREFIX}{content}:{}", self.subject())
    }
}

impl<T> FromStr for Sealed<T> {
    type Err = NotSealed;

    fn from_str(text: &str) -> Result<Self, NotSealed> {
        let rest = text.strip_prefix(PREFIX).ok_or(NotSealed)?;
        let (content, subject) = rest.split_once(':').ok_or(NotSealed)?;
        let content = URL_SAFE_NO_PAD.decode(content).map_err(|_| NotSealed)?;
        if content.len() < OVERHEAD {
            return Err(NotSealed);
        }
        let subject = Subject::new(subject).map_err(|_| NotSealed)?;
        Ok(Self::new(subject, content))
    }
}

impl<T> Serialize for Sealed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of what is no text would show it.
        let value = deserializer.deserialize_str(Text(PhantomData));
        value.map_err(|_| de::Error::custom(NotSealed))
    }
}

struct Text<T>(PhantomData<T>);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = Sealed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sealed value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(content: usize) -> String {
        let content = URL_SAFE_NO_PAD.encode(vec![7; content]);
        format!("sealed:1:{content}:a:b")
    }

    #[test]
    fn text_comes_back() {
        let text = sealed(OVERHEAD + 3);
        let value: Sealed<u8> = text.parse().expect("it is a sealed value");
        assert_eq!(value.subject().as_str(), "a:b");
        assert_eq!(value.to_string(), text);
        let json = serde_json::to_string(&value).expect("it is written");
        assert_eq!(json, format!("{text:?}"));
        let again: Sealed<u8> = serde_json::from_str(&json).expect("it is read");
        assert_eq!(again, value);
    }

    #[test]
    fn what_is_not_sealed_is_refused_and_not_shown() {
        let short = sealed(OVERHEAD - 1);
        let texts = ["Ada", "", "sealed:1:", "sealed:1:AAAA", "sealed:2:AAAA:a"];
        for text in texts.into_iter().chain([short.as_str()]) {
            assert_eq!(text.parse::<Sealed<u8>>(), Err(NotSealed), "{text}");
        }
        for json in [
            r#""Ada 1815""#,
            "1815",
            "-1815",
            "1815.5",
            "true",
            "[1815]",
            "{\"Ada\":1}",
        ] {
            let error = serde_json::from_str::<Sealed<u8>>(json).expect_err(json);
            let shown = format!("{error} {error:?}");
            let shows = ["1815", "Ada", "true"]
                .iter()
                .any(|part| shown.contains(part));
            assert!(!shows, "{shown}");
        }
    }
}
