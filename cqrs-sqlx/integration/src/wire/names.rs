//! Which SQL an execution stands for.

use std::collections::HashMap;
use std::sync::Arc;

use super::protocol::{Message, tag};

/// What the prepared statements and portals of one connection stand for, by name.
///
/// Names are used again for other statements, never forgotten.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: HashMap<Vec<u8>, Arc<str>>,
    portals: HashMap<Vec<u8>, Arc<str>>,
}

impl Names {
    /// The SQL that a message of the client prepares or binds, or executes as text.
    pub(super) fn meant(&self, message: &Message) -> Option<Arc<str>> {
        let (_, rest) = split_text(message.body())?;
        match message.tag() {
            tag::PARSE => sql_in(rest),
            tag::BIND => self.statements.get(split_text(rest)?.0).cloned(),
            tag::QUERY => sql_in(message.body()),
            _ => None,
        }
    }

    /// Learns from a message of the client, and returns the SQL that it executes.
    pub(super) fn executed(&mut self, message: &Message) -> Option<Arc<str>> {
        let body = message.body();
        match message.tag() {
            tag::PARSE => {
                let (statement, rest) = split_text(body)?;
                self.statements.insert(statement.to_vec(), sql_in(rest)?);
                None
            }
            tag::BIND => {
                let (portal, rest) = split_text(body)?;
                let (statement, _) = split_text(rest)?;
                let sql = Arc::clone(self.statements.get(statement)?);
                self.portals.insert(portal.to_vec(), sql);
                None
            }
            tag::EXECUTE => {
                let (portal, _) = split_text(body)?;
                self.portals.get(portal).cloned()
            }
            tag::QUERY => sql_in(body),
            _ => None,
        }
    }
}

/// Splits the text at the start of `bytes` from what follows its terminator.
pub(super) fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Reads the SQL at the start of `bytes`.
fn sql_in(bytes: &[u8]) -> Option<Arc<str>> {
    let (sql, _) = split_text(bytes)?;
    Some(String::from_utf8_lossy(sql).into())
}
