//! Where a connection breaks.

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: statements.
    FromClient,
    /// From the server to the client: answers.
    FromServer,
}

/// Where the proxy breaks a connection.
///
/// Messages are counted in one direction over all connections, from 0, since
/// [`WireProxy::arm`](super::WireProxy::arm). sqlx sends several messages in one write; they are
/// counted one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub(super) direction: Direction,
    pub(super) message: usize,
    pub(super) when: When,
}

impl Cut {
    /// Cuts before a message: neither it nor a later one arrives.
    ///
    /// From the client: the server never sees the message. From the server: it has done its work,
    /// and the rest of its answer is lost.
    pub fn before(direction: Direction, message: usize) -> Self {
        Self {
            direction,
            message,
            when: When::Before,
        }
    }

    /// Cuts after a message: it arrives, and no later one does.
    ///
    /// From the client: the server sees the message, and its answer is lost. From the server: the
    /// client sees the message, and the rest of the answer is lost.
    pub fn after(direction: Direction, message: usize) -> Self {
        Self {
            direction,
            message,
            when: When::After,
        }
    }

    /// Cuts the client before one of its messages, and keeps the messages for later.
    ///
    /// Held back are this one and the following up to the next that asks for an answer. The
    /// client's end is closed at once; the server's stays open, and gets them on
    /// [`WireProxy::release`](super::WireProxy::release): so a commit arrives after its sender has
    /// given it up.
    pub fn delayed(message: usize) -> Self {
        Self {
            direction: Direction::FromClient,
            message,
            when: When::Delayed,
        }
    }
}

/// What becomes of the message at which a cut strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Before,
    After,
    Delayed,
}
