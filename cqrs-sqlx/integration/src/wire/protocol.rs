//! The messages of the protocol, as far as the proxy tells them apart.

use std::io;

/// The types of messages that matter here. Those of clients and of servers share some letters.
pub(super) mod tag {
    pub(in super::super) const AUTHENTICATION: u8 = b'R';
    pub(in super::super) const BACKEND_KEY_DATA: u8 = b'K';
    pub(in super::super) const BIND: u8 = b'B';
    pub(in super::super) const CLOSE: u8 = b'C';
    pub(in super::super) const CLOSE_COMPLETE: u8 = b'3';
    pub(in super::super) const DESCRIBE: u8 = b'D';
    pub(in super::super) const ERROR: u8 = b'E';
    pub(in super::super) const EXECUTE: u8 = b'E';
    pub(in super::super) const NOTIFICATION: u8 = b'A';
    pub(in super::super) const PARAMETER_STATUS: u8 = b'S';
    pub(in super::super) const PARSE: u8 = b'P';
    pub(in super::super) const PARSE_COMPLETE: u8 = b'1';
    pub(in super::super) const QUERY: u8 = b'Q';
    pub(in super::super) const READY_FOR_QUERY: u8 = b'Z';
    pub(in super::super) const SYNC: u8 = b'S';
    pub(in super::super) const TERMINATE: u8 = b'X';
}

/// The length of a message's type and of its length.
const HEADER: usize = 5;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// As it goes over the wire.
    pub(super) bytes: Vec<u8>,
}

impl Message {
    /// A message of this type.
    pub(super) fn new(tag: u8, body: &[u8]) -> Self {
        let length = u32::try_from(body.len() + 4).expect("messages are shorter");
        Self {
            bytes: [&[tag], &length.to_be_bytes()[..], body].concat(),
        }
    }

    /// Takes the message at the start of a buffer, or nothing if it is not there completely.
    pub(super) fn take(buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some((_, rest)) = buffer.split_first() else {
            return Ok(None);
        };
        let Some((length, _)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        // The length counts itself, and not the type.
        let length = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .filter(|length| *length >= 4)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "a message of impossible length")
            })?;
        if rest.len() < length {
            return Ok(None);
        }
        let bytes = buffer.drain(..=length).collect();
        Ok(Some(Self { bytes }))
    }

    /// Its type.
    pub(super) fn tag(&self) -> u8 {
        self.bytes[0]
    }

    /// What follows its type and its length.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// Whether a client's message executes a statement.
    pub(super) fn is_execution(&self) -> bool {
        matches!(self.tag(), tag::EXECUTE | tag::QUERY)
    }

    /// Whether a client's message gives a statement its parameters, and is followed by its execution.
    pub(super) fn is_bind(&self) -> bool {
        self.tag() == tag::BIND
    }

    /// Whether a client's message asks for an answer, and for its end.
    pub(super) fn is_request(&self) -> bool {
        matches!(self.tag(), tag::QUERY | tag::SYNC)
    }

    /// Whether a server's message is a notification.
    pub(super) fn is_notification(&self) -> bool {
        self.tag() == tag::NOTIFICATION
    }

    /// Whether a server's message ends an answer.
    pub(super) fn is_end_of_answer(&self) -> bool {
        self.tag() == tag::READY_FOR_QUERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_it_is_complete() {
        let bytes = b"Q\0\0\0\x07ab\0S\0\0\0\x04";
        for end in 0..8 {
            let mut buffer = bytes[..end].to_vec();
            assert_eq!(Message::take(&mut buffer).unwrap(), None);
            assert_eq!(buffer, bytes[..end]);
        }
        let mut buffer = bytes.to_vec();
        let query = Message::take(&mut buffer).unwrap().unwrap();
        assert_eq!((query.tag(), query.body()), (b'Q', &b"ab\0"[..]));
        let sync = Message::take(&mut buffer).unwrap().unwrap();
        assert_eq!((sync.tag(), sync.body()), (b'S', &b""[..]));
        assert_eq!(Message::take(&mut buffer).unwrap(), None);
    }

    #[test]
    fn a_message_of_impossible_length_is_refused() {
        for length in [-1, 0, 3] {
            let mut buffer = vec![b'Q'];
            buffer.extend(i32::to_be_bytes(length));
            let error = Message::take(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
