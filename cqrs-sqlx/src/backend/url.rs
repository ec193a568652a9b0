//! Database URLs.

use std::str::FromStr;

use cqrs_core::{Error, Result, StoreError, StoreErrorKind};

/// The options in a URL with one of these schemes. The URL itself, which may hold a password, is
/// in no message.
pub(super) fn parse<O: FromStr<Err = sqlx::Error>>(url: &str, schemes: &[&str]) -> Result<O> {
    let is_known = url
        .split_once(':')
        .is_some_and(|(scheme, _)| schemes.contains(&scheme));
    if !is_known {
        let schemes = schemes.join(":` or `");
        return Err(Error::store(
            StoreErrorKind::Usage,
            format!("the database URL does not begin with `{schemes}:`"),
        ));
    }
    url.parse().map_err(|cause| {
        let error = StoreError::new(StoreErrorKind::Usage, "the database URL is malformed");
        Error::Store(error.with_source(cause))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Options;

    impl FromStr for Options {
        type Err = sqlx::Error;

        fn from_str(url: &str) -> Result<Self, sqlx::Error> {
            if url.ends_with("good") {
                return Ok(Self);
            }
            Err(sqlx::Error::Configuration("bad".into()))
        }
    }

    #[test]
    fn a_url_has_a_known_scheme_and_is_in_no_message() {
        assert!(parse::<Options>("b:good", &["a", "b"]).is_ok());
        for url in ["", "secret", "c://secret@good", "a://secret@bad", "ab:good"] {
            let Err(Error::Store(error)) = parse::<Options>(url, &["a", "b"]) else {
                panic!("{url} is taken");
            };
            assert_eq!(*error.kind(), StoreErrorKind::Usage, "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
