//! A connection of the pooler to the server.

use std::io;

use super::super::peer::{Peer, Upstream};
use super::super::protocol::{Message, tag};
use super::{Login, startup};

pub(super) struct Server {
    pub(super) peer: Peer,
    /// As it is set in the session.
    pub(super) application_name: String,
    /// What the server said of its settings when it was opened, for clients to be told.
    pub(super) greeting: Vec<u8>,
}

impl Server {
    pub(super) async fn open(
        upstream: &Upstream,
        login: &Login,
        application_name: &str,
    ) -> io::Result<Self> {
        let mut peer = upstream.connect().await?;
        peer.send(&startup::message(login, application_name))
            .await?;
        let mut server = Self {
            peer,
            application_name: application_name.to_owned(),
            greeting: Vec::new(),
        };
        loop {
            let message = server.next().await?;
            match message.tag() {
                tag::AUTHENTICATION if message.body() != [0; 4] => {
                    let why = "the server asks for a password, and the model of a pooler has none";
                    return Err(io::Error::other(why));
                }
                tag::PARAMETER_STATUS => server.greeting.extend_from_slice(&message.bytes),
                tag::ERROR => {
                    let said = String::from_utf8_lossy(message.body()).into_owned();
                    return Err(io::Error::other(said));
                }
                tag::READY_FOR_QUERY => return Ok(server),
                _ => {}
            }
        }
    }

    /// Whether the server has closed it while it was idle.
    pub(super) fn is_gone(&mut self) -> bool {
        self.peer.is_at_end()
    }

    /// Sets the name of a client's application.
    pub(super) async fn introduce(&mut self, application_name: &str) -> io::Result<()> {
        if self.application_name == application_name {
            return Ok(());
        }
        let name = application_name.replace('\'', "''");
        let set = format!("SET application_name = '{name}'\0");
        self.peer
            .send(&Message::new(tag::QUERY, set.as_bytes()).bytes)
            .await?;
        while !self.next().await?.is_end_of_answer() {}
        application_name.clone_into(&mut self.application_name);
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.peer.next_message()? {
                return Ok(message);
            }
            if !self.peer.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
