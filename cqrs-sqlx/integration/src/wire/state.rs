//! What the handle and all connections share.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::counts::Counts;
use super::cut::{Cut, Direction, When};
use super::peer::{Peer, Upstream};
use super::protocol::Message;

pub(super) struct Shared {
    pub(super) upstream: Upstream,
    /// Told when those who wait for a connection are let in.
    pub(super) admitted: Notify,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            admitted: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// Locks what no code leaves half changed, so a panic of another holder does not matter.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) counts: Counts,
    /// The SQL of each statement that was counted.
    pub(super) log: Vec<Arc<str>>,
    /// A cut that has not struck, with the messages that are still to pass.
    pub(super) armed: Option<Cut>,
    /// The type of the message at which the last cut struck.
    pub(super) struck: Option<u8>,
    pub(super) held: Vec<Held>,
    /// How many notifications were kept from clients; `None` where they pass.
    pub(super) swallowed: Option<usize>,
    /// A connection that executes SQL with this in it is closed.
    pub(super) refused: Option<&'static str>,
    /// A connection that executes SQL with this in it is closed in place of the answer.
    pub(super) unanswered: Option<&'static str>,
    pub(super) to_silence: Option<Silence>,
    /// How many connections have gone silent.
    pub(super) silent: usize,
    /// Whether connections are taken and not opened.
    pub(super) is_full: bool,
    /// How many connections there are, and how many there were at most.
    pub(super) open: usize,
    pub(super) peak: usize,
}

impl State {
    /// Counts a message for the armed cut, and says whether it strikes there.
    pub(super) fn strikes(&mut self, direction: Direction, message: &Message) -> Option<When> {
        let cut = self.armed.as_mut()?;
        if cut.direction != direction {
            return None;
        }
        if cut.message > 0 {
            cut.message -= 1;
            return None;
        }
        let when = cut.when;
        self.armed = None;
        self.struck = Some(message.tag());
        Some(when)
    }

    /// Takes one of the connections that are to go silent.
    pub(super) fn falls_silent(&mut self) {
        self.silent += 1;
        self.to_silence = self.to_silence.and_then(|silence| {
            let connections = silence
                .connections
                .checked_sub(1)
                .filter(|left| *left > 0)?;
            Some(Silence {
                connections,
                ..silence
            })
        });
    }

    /// Whether a message of the server is a notification that its client does not get.
    pub(super) fn swallows(&mut self, message: &Message) -> bool {
        match &mut self.swallowed {
            Some(swallowed) if message.is_notification() => {
                *swallowed += 1;
                true
            }
            _ => false,
        }
    }

    /// Counts a statement.
    pub(super) fn count_statement(&mut self, sql: Option<Arc<str>>) {
        self.counts.statements += 1;
        let sql = sql.unwrap_or_else(|| "(a statement prepared in a way unknown here)".into());
        self.log.push(sql);
    }
}

/// That so many connections are to go silent, each when it executes SQL with this in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    pub(super) direction: Direction,
    pub(super) connections: usize,
    pub(super) sql: &'static str,
}

/// Messages that a cut keeps from the server, and the way there.
pub(super) struct Held {
    pub(super) messages: Vec<Message>,
    pub(super) server: Peer,
}

impl Held {
    /// Lets the server have them, and waits until it has answered.
    pub(super) async fn deliver(mut self) -> io::Result<()> {
        let requests = self.messages.iter().filter(|one| one.is_request()).count();
        for message in &self.messages {
            self.server.send(&message.bytes).await?;
        }
        self.server.swallow(requests).await
    }
}
