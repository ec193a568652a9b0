//! One connection: what arrives from either side is counted, then forwarded or cut.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::cut::{Direction, When};
use super::names::Names;
use super::peer::Peer;
use super::protocol::Message;
use super::state::{Held, Shared};

pub(super) struct Link {
    shared: Arc<Shared>,
    client: Peer,
    server: Peer,
    /// The server has completed the opening.
    opened: bool,
    names: Names,
    /// How many answers the server owes to the client.
    owed: usize,
    /// Nothing that the server answers arrives, and the client's end is closed with the answer.
    is_unanswered: bool,
    /// Nothing arrives any more that goes this way.
    silent: Option<Direction>,
}

impl Link {
    /// Opens a connection to the server for one of a client.
    pub(super) async fn open(client: TcpStream, shared: Arc<Shared>) -> io::Result<Self> {
        let mut client = Peer::client(client)?;
        let startup = client.read_startup().await?;
        if shared.state().is_full {
            let gives_up = async {
                while client.fill().await? {}
                Err(io::ErrorKind::ConnectionAborted.into())
            };
            tokio::select! {
                () = shared.admitted.notified() => io::Result::Ok(()),
                gone = gives_up => gone,
            }?;
        }
        let mut server = shared.upstream.connect().await?;
        server.send(&startup).await?;
        Ok(Self {
            shared,
            client,
            server,
            opened: false,
            names: Names::default(),
            owed: 0,
            is_unanswered: false,
            silent: None,
        })
    }

    /// Runs the connection to its end, or to a cut and the answers due by then.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut client_talks = true;
        while client_talks || !self.is_silent(Direction::FromServer) {
            tokio::select! {
                more = self.client.fill(), if client_talks => {
                    client_talks = more?;
                    if self.is_silent(Direction::FromClient) {
                        self.client.forget();
                    } else if !client_talks {
                        // The server may still have something to say to a client that listens.
                        self.server.shutdown().await?;
                    } else if let Some(messages) = self.forward_from_client().await? {
                        self.server.swallow(self.owed).await?;
                        if !messages.is_empty() {
                            // Before the client's end closes: who sees that may release them.
                            let server = self.server;
                            self.shared.state().held.push(Held { messages, server });
                        }
                        return Ok(());
                    }
                }
                more = self.server.fill(), if !self.is_silent(Direction::FromServer) => {
                    if !more? || self.forward_from_server().await? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Forwards what the client says.
    ///
    /// Where a cut strikes, returns what it holds back.
    async fn forward_from_client(&mut self) -> io::Result<Option<Vec<Message>>> {
        let mut forward = Vec::new();
        while let Some(message) = self.client.next_message()? {
            let (refused, unanswered) = {
                let state = self.shared.state();
                (state.refused, state.unanswered)
            };
            self.is_unanswered |= message.is_bind() && self.means(&message, unanswered);
            if self.means(&message, refused) {
                return Ok(Some(Vec::new()));
            }
            self.fall_silent(&message);
            if self.is_silent(Direction::FromClient) {
                return Ok(None);
            }
            let cut = self.strikes(Direction::FromClient, &message);
            if matches!(cut, None | Some(When::After)) {
                self.count_from_client(&message);
                self.owed += usize::from(self.opened && message.is_request());
                forward.extend_from_slice(&message.bytes);
            }
            if let Some(when) = cut {
                self.server.send(&forward).await?;
                return Ok(Some(match when {
                    When::Before | When::After => Vec::new(),
                    When::Delayed => self.hold(message).await?,
                }));
            }
        }
        self.server.send(&forward).await?;
        Ok(None)
    }

    /// Reads the messages to hold back, up to the next that asks for an answer.
    async fn hold(&mut self, first: Message) -> io::Result<Vec<Message>> {
        self.count_from_client(&first);
        let mut held = vec![first];
        while !held.iter().any(Message::is_request) {
            match self.client.next_message()? {
                Some(message) => {
                    self.count_from_client(&message);
                    held.push(message);
                }
                None if self.client.fill().await? => {}
                None => break,
            }
        }
        Ok(held)
    }

    /// Forwards what the server says.
    ///
    /// Returns whether a cut has struck.
    async fn forward_from_server(&mut self) -> io::Result<bool> {
        let mut forward = Vec::new();
        while let Some(message) = self.server.next_message()? {
            if self.shared.state().swallows(&message) {
                continue;
            }
            if self.is_unanswered {
                if message.is_end_of_answer() {
                    return Ok(true);
                }
                continue;
            }
            let cut = self.strikes(Direction::FromServer, &message);
            let ends = message.is_end_of_answer();
            if self.opened && ends {
                self.owed -= 1;
            }
            if cut != Some(When::Before) {
                self.shared.state().counts.round_trips += usize::from(self.opened && ends);
                forward.extend_from_slice(&message.bytes);
            }
            if cut.is_some() {
                self.server.swallow(self.owed).await?;
                self.client.send(&forward).await?;
                return Ok(true);
            }
            self.opened |= ends;
        }
        self.client.send(&forward).await?;
        Ok(false)
    }

    /// Whether the message prepares or executes SQL with this in it.
    fn means(&self, message: &Message, wanted: Option<&str>) -> bool {
        wanted.is_some_and(|wanted| {
            let sql = self.names.meant(message);
            sql.is_some_and(|sql| sql.contains(wanted))
        })
    }

    fn is_silent(&self, direction: Direction) -> bool {
        self.silent == Some(direction)
    }

    /// Falls silent where this is the message to do so at: before a statement is prepared, and for
    /// the answer when it is executed.
    fn fall_silent(&mut self, message: &Message) {
        let mut state = self.shared.state();
        let Some(silence) = state.to_silence.filter(|_| self.silent.is_none()) else {
            return;
        };
        let is_in_time = silence.direction == Direction::FromClient || message.is_bind();
        if is_in_time && self.means(message, Some(silence.sql)) {
            self.silent = Some(silence.direction);
            state.falls_silent();
        }
    }

    fn strikes(&self, direction: Direction, message: &Message) -> Option<When> {
        if !self.opened {
            return None;
        }
        self.shared.state().strikes(direction, message)
    }

    fn count_from_client(&mut self, message: &Message) {
        let sql = self.names.executed(message);
        if message.is_execution() {
            self.shared.state().count_statement(sql);
        }
    }
}
