//! A client, and the connection to the server that its transaction has.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::super::names::split_text;
use super::super::peer::Peer;
use super::super::protocol::{Message, tag};
use super::startup::Startup;
use super::{Lease, Pool, Pools, Prepared};

/// What every prepared statement is called on the server.
const NAME: &[u8] = b"POOLER\0";

pub(super) struct Client {
    peer: Peer,
    pool: Arc<Pool>,
    prepared: Prepared,
    application_name: String,
    /// What the client has prepared, by name: the text and the types of its parameters.
    statements: HashMap<Vec<u8>, Vec<u8>>,
    lease: Option<Lease>,
    /// What was sent to the server and not answered yet, by the requests that end an answer. The last
    /// one is still open.
    sent: VecDeque<Request>,
}

/// Which of the answers are not the client's, since it is the pooler who asked.
#[derive(Default)]
struct Request {
    parsed: VecDeque<bool>,
    closed: VecDeque<bool>,
    is_empty: bool,
}

impl Client {
    /// Greets a client.
    pub(super) async fn open(socket: TcpStream, pools: &Pools) -> io::Result<Self> {
        let mut peer = Peer::client(socket)?;
        let startup = match Startup::read(&mut peer).await? {
            Ok(startup) => startup,
            Err(refused) => {
                peer.send(&fatal(&refused).bytes).await?;
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        let pool = pools.of(&startup.login);
        let mut lease = match pool.take().await {
            Ok(lease) => lease,
            Err(cause) => {
                peer.send(&fatal(&format!("server login failed: {cause}")).bytes)
                    .await?;
                return Err(cause);
            }
        };
        // No process of the server has this id.
        let key = [&u32::MAX.to_be_bytes()[..], &[7; 4]].concat();
        let mut greeting = Message::new(tag::AUTHENTICATION, &[0; 4]).bytes;
        greeting.extend_from_slice(&lease.server().greeting);
        greeting.extend(Message::new(tag::BACKEND_KEY_DATA, &key).bytes);
        greeting.extend(Message::new(tag::READY_FOR_QUERY, b"I").bytes);
        lease.give_back();
        peer.send(&greeting).await?;
        Ok(Self {
            peer,
            pool,
            prepared: pools.prepared,
            application_name: startup.application_name,
            statements: HashMap::new(),
            lease: None,
            sent: VecDeque::new(),
        })
    }

    /// Serves the client until it goes. A connection that it has then is closed with it.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            let Some(lease) = &mut self.lease else {
                if !self.peer.fill().await? || self.forward_from_client().await? {
                    return Ok(());
                }
                continue;
            };
            tokio::select! {
                more = self.peer.fill() => {
                    if !more? || self.forward_from_client().await? {
                        return Ok(());
                    }
                }
                more = lease.server().peer.fill() => {
                    let is_there = more.unwrap_or(false);
                    self.forward_from_server().await?;
                    if !is_there && self.lease.is_some() {
                        return self.peer.send(&fatal("server conn crashed?").bytes).await;
                    }
                }
            }
        }
    }

    /// Forwards what the client says; whether it takes its leave.
    async fn forward_from_client(&mut self) -> io::Result<bool> {
        while let Some(message) = self.peer.next_message()? {
            if message.tag() == tag::TERMINATE {
                return Ok(true);
            }
            if self.lease.is_none() {
                // Nothing is read from the client meanwhile: it may be gone when there is one.
                let mut lease = self.pool.take().await?;
                lease.server().introduce(&self.application_name).await?;
                self.lease = Some(lease);
                self.sent.clear();
                self.sent.push_back(Request::new());
            }
            let bytes = self.translate(&message);
            if let Some(lease) = &mut self.lease
                && lease.server().peer.send(&bytes).await.is_err()
            {
                // Its end is read, and told.
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// What the server is to get for a message of the client.
    fn translate(&mut self, message: &Message) -> Vec<u8> {
        let sent = self.sent.back_mut().expect("one is open");
        sent.is_empty = false;
        if message.is_request() {
            self.sent.push_back(Request::new());
        } else if self.prepared == Prepared::Renamed
            && let Some(bytes) = self.rename(message)
        {
            return bytes;
        } else if let Some(sent) = self.sent.back_mut() {
            match message.tag() {
                tag::PARSE => sent.parsed.push_back(true),
                tag::CLOSE => sent.closed.push_back(true),
                _ => {}
            }
        }
        message.bytes.clone()
    }

    /// A message about a prepared statement that has a name.
    fn rename(&mut self, message: &Message) -> Option<Vec<u8>> {
        let body = message.body();
        let (before, rest) = match (message.tag(), body.split_first()?) {
            (tag::PARSE, _) => (&body[..0], body),
            (tag::BIND, _) => {
                let (portal, rest) = split_text(body)?;
                (&body[..=portal.len()], rest)
            }
            (tag::DESCRIBE | tag::CLOSE, (b'S', rest)) => (&body[..1], rest),
            _ => return None,
        };
        let (name, rest) = split_text(rest)?;
        if name.is_empty() {
            return None;
        }
        let is_parse = message.tag() == tag::PARSE;
        if is_parse {
            self.statements.insert(name.to_vec(), rest.to_vec());
        } else if message.tag() == tag::CLOSE {
            self.statements.remove(name);
        }
        let sent = self.sent.back_mut()?;
        let mut bytes = Vec::new();
        if message.tag() == tag::CLOSE {
            sent.closed.push_back(true);
        } else if let Some(statement) = self.statements.get(name) {
            // Whatever the connection has prepared by then is another's.
            sent.closed.push_back(false);
            bytes.extend(Message::new(tag::CLOSE, &[b"S", NAME].concat()).bytes);
            sent.parsed.push_back(is_parse);
            bytes.extend(Message::new(tag::PARSE, &[NAME, statement].concat()).bytes);
        }
        if !is_parse {
            let renamed = [before, NAME, rest].concat();
            bytes.extend(Message::new(message.tag(), &renamed).bytes);
        }
        Some(bytes)
    }

    /// Forwards what the server says, and gives the connection back at the end of a transaction.
    async fn forward_from_server(&mut self) -> io::Result<()> {
        let mut forward = Vec::new();
        let mut is_over = false;
        let Some(lease) = &mut self.lease else {
            return Ok(());
        };
        while let Some(message) = lease.server().peer.next_message()? {
            let request = self.sent.front_mut();
            let is_for_client = match message.tag() {
                tag::PARSE_COMPLETE => request.and_then(|request| request.parsed.pop_front()),
                tag::CLOSE_COMPLETE => request.and_then(|request| request.closed.pop_front()),
                _ => None,
            };
            if message.tag() == tag::PARAMETER_STATUS
                && let Some((b"application_name", value)) = split_text(message.body())
                && let Some((value, _)) = split_text(value)
            {
                self.application_name = String::from_utf8_lossy(value).into_owned();
                lease
                    .server()
                    .application_name
                    .clone_from(&self.application_name);
            }
            if message.is_end_of_answer() {
                self.sent.pop_front();
                let is_last = self.sent.len() == 1 && self.sent[0].is_empty;
                is_over = is_last && message.body() == b"I";
            }
            if is_for_client.unwrap_or(true) {
                forward.extend_from_slice(&message.bytes);
            }
        }
        if is_over && let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        self.peer.send(&forward).await
    }
}

impl Request {
    fn new() -> Self {
        Self {
            is_empty: true,
            ..Self::default()
        }
    }
}

/// The error with which a pooler closes a client.
fn fatal(what: &str) -> Message {
    let mut body = Vec::new();
    for (field, text) in [('S', "FATAL"), ('V', "FATAL"), ('C', "08P01"), ('M', what)] {
        body.push(u8::try_from(field).expect("an ASCII letter"));
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    Message::new(tag::ERROR, &body)
}
