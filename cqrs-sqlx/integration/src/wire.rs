//! A proxy between a client and Postgres that counts what goes over the wire, and cuts it.
//!
//! It reads the frames of the frontend/backend protocol, version 3, and forwards whole messages
//! in order. So a test can say how many statements and round trips an operation may cost, and can
//! break the connection at each message of an operation, one after the other:
//!
//! ```no_run
//! # use cqrs_integration::wire::{Cut, Direction, WireProxy};
//! # async fn commit(_: &sqlx::PgPool) -> sqlx::Result<()> { Ok(()) }
//! # async fn example(url: &str) {
//! let proxy = WireProxy::start(url).await;
//! let pool = sqlx::PgPool::connect(proxy.url()).await.expect("the server is up");
//! for message in 0.. {
//!     proxy.arm(Cut::before(Direction::FromClient, message));
//!     let outcome = commit(&pool).await;
//!     if !proxy.was_cut() {
//!         break; // the operation has no more messages than this
//!     }
//!     // what does the server say, and does `outcome` agree?
//! }
//! # }
//! ```
//!
//! **Invariants.**
//! A message is counted before it is forwarded: who has seen an answer finds it in the counts.
//! What belongs to the opening of a connection is neither counted nor cut.
//! A ping is counted and never cut: sqlx's pool sends one whenever a connection is given back, from
//! a task in the background, so that it falls into one operation or into the next.
//! The client's end is closed only when the server has answered all that was forwarded to it: who
//! sees the connection die finds the server in its final state, except for work that the server
//! gives up because its own end closes. A test waits for that with a lock on the table.

use std::collections::{HashMap, VecDeque};
use std::io;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::database::{options, url_through};

/// A proxy in front of one Postgres server, on a port of its own of this machine.
///
/// It takes any number of connections, each to the server on a connection of its own.
/// Dropping it closes them all; what is held back for [`release`](Self::release) is then never
/// delivered.
#[derive(Debug)]
pub struct WireProxy {
    url: String,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

impl WireProxy {
    /// Starts a proxy in front of the server of a Postgres URL, on the current runtime.
    ///
    /// The server must accept connections without TLS.
    ///
    /// # Panics
    ///
    /// If `upstream` is no Postgres URL, or outside of a tokio runtime.
    pub async fn start(upstream: &str) -> Self {
        let options = options(upstream);
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("this machine has a free port");
        let port = listener.local_addr().expect("the listener is bound").port();
        let shared = Arc::new(Shared::new(Upstream::of(&options)));
        Self {
            url: url_through(options, port),
            acceptor: tokio::spawn(accept(listener, Arc::clone(&shared))),
            shared,
        }
    }

    /// Returns the URL it was started with, leading through the proxy and without TLS.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns what went over the wire since the start, on all connections.
    pub fn counts(&self) -> Counts {
        lock(&self.shared.state).counts
    }

    /// Returns the SQL of each statement executed since the start, in order.
    ///
    /// It has as many entries as [`Counts::statements`] says.
    pub fn statements_log(&self) -> Vec<String> {
        self.statements_since(&Counts::default())
    }

    /// Returns the SQL of each statement executed since `earlier`, in order.
    pub fn statements_since(&self, earlier: &Counts) -> Vec<String> {
        let state = lock(&self.shared.state);
        state
            .log
            .iter()
            .skip(earlier.statements())
            .map(ToString::to_string)
            .collect()
    }

    /// Makes every message from now on arrive `delay` after it was sent, in each direction.
    ///
    /// Only latency is added, no limit of throughput: any number of messages is under way at the
    /// same time. The default is none. The timers of a machine are late by some 0.1 ms, so measure
    /// with a ping what a round trip comes to.
    pub fn set_delay(&self, delay: Duration) {
        let nanos = u64::try_from(delay.as_nanos()).expect("a delay is shorter than a century");
        self.shared.delay.store(nanos, Ordering::Relaxed);
    }

    /// Arms a cut, in place of an earlier one that has not struck.
    ///
    /// It strikes once; connections opened later work normally. Messages are counted from here.
    pub fn arm(&self, cut: Cut) {
        let mut state = lock(&self.shared.state);
        state.generation += 1;
        state.struck = None;
        state.armed = Some(Armed {
            cut,
            passed: 0,
            connection: None,
        });
        self.shared.stage.send_replace(Stage::Whole);
    }

    /// Takes back a cut that has not struck.
    pub fn disarm(&self) {
        lock(&self.shared.state).armed = None;
    }

    /// Returns whether the cut that was armed last has struck.
    ///
    /// It is true before the client can notice.
    pub fn was_cut(&self) -> bool {
        *self.shared.stage.borrow() != Stage::Whole
    }

    /// Returns the type of the message at which the cut that was armed last has struck, as the
    /// protocol spells it: `S` from the client is Sync, `Z` from the server is `ReadyForQuery`.
    pub fn cut_message(&self) -> Option<char> {
        let struck = lock(&self.shared.state).struck.map(char::from);
        struck.filter(|_| self.was_cut())
    }

    /// Waits until the cut that was armed last has struck and the client's end is closed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    pub async fn wait_cut(&self) {
        let mut stage = self.shared.stage.subscribe();
        let _ = stage.wait_for(|stage| *stage == Stage::Closed).await;
    }

    /// Lets the server have what [`Cut::delayed`] holds back at this moment.
    pub fn release(&self) {
        self.shared.releases.send_modify(|releases| *releases += 1);
    }

    /// Waits until nothing is held back any more and the server has answered what was.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    pub async fn wait_delivered(&self) {
        let mut held = self.shared.held.subscribe();
        let _ = held.wait_for(|held| *held == 0).await;
    }

    /// Closes all connections that are open now, whatever is under way on them.
    pub fn drop_connections(&self) {
        self.shared.drops.send_modify(|drops| *drops += 1);
    }
}

impl Drop for WireProxy {
    fn drop(&mut self) {
        // The acceptor owns the tasks of the connections.
        self.acceptor.abort();
    }
}

/// How much went over the wire.
///
/// Messages of the opening of a connection do not count, nor does what a cut kept from its
/// receiver; what [`Cut::delayed`] holds back does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Executions of prepared statements (`Execute`).
    pub executes: usize,
    /// Statements sent as text without parameters (`Query`).
    pub simple_queries: usize,
    /// Statements prepared (`Parse`).
    pub parses: usize,
    /// Requests for an answer (`Sync`), with or without messages before.
    pub syncs: usize,
    /// Answers completed (`ReadyForQuery`).
    pub round_trips: usize,
    /// Those of them that answered a ping, which is a `Sync` that stands alone.
    ///
    /// A pool pings in the background when it gets a connection back, so nobody can say when.
    pub pings: usize,
    /// All messages of clients.
    pub client_messages: usize,
    /// All messages of the server.
    pub server_messages: usize,
}

impl Counts {
    /// Returns the number of statements executed, of either kind.
    pub fn statements(&self) -> usize {
        self.executes + self.simple_queries
    }

    /// Returns the number of answers that somebody needed.
    pub fn round_trips_without_pings(&self) -> usize {
        self.round_trips - self.pings
    }

    /// Returns what was counted since `earlier`.
    ///
    /// # Panics
    ///
    /// If `earlier` is not earlier.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |now: usize, then: usize| {
            now.checked_sub(then)
                .expect("`earlier` was taken from the same proxy before")
        };
        Self {
            executes: difference(self.executes, earlier.executes),
            simple_queries: difference(self.simple_queries, earlier.simple_queries),
            parses: difference(self.parses, earlier.parses),
            syncs: difference(self.syncs, earlier.syncs),
            round_trips: difference(self.round_trips, earlier.round_trips),
            pings: difference(self.pings, earlier.pings),
            client_messages: difference(self.client_messages, earlier.client_messages),
            server_messages: difference(self.server_messages, earlier.server_messages),
        }
    }

    fn add_from_client(&mut self, tag: u8) {
        self.client_messages += 1;
        match tag {
            frontend::EXECUTE => self.executes += 1,
            frontend::QUERY => self.simple_queries += 1,
            frontend::PARSE => self.parses += 1,
            frontend::SYNC => self.syncs += 1,
            _ => {}
        }
    }

    fn add_from_server(&mut self, tag: u8, ping: bool) {
        self.server_messages += 1;
        if tag == backend::READY_FOR_QUERY {
            self.round_trips += 1;
            self.pings += usize::from(ping);
        }
    }
}

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
/// [`WireProxy::arm`]; see [`at_statement`](Self::at_statement) for a narrower count.
/// sqlx sends several messages in one write; they are counted one by one. Pings and their answers
/// are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    direction: Direction,
    message: usize,
    when: When,
    statement: Option<String>,
}

impl Cut {
    /// Cuts before a message: neither it nor a later one arrives.
    ///
    /// From the client: the server never sees the message. From the server: it has done its work,
    /// and the rest of its answer is lost.
    pub fn before(direction: Direction, message: usize) -> Self {
        Self::new(direction, message, When::Before)
    }

    /// Cuts after a message: it arrives, and no later one does.
    ///
    /// From the client: the server sees the message, and its answer is lost. From the server: the
    /// client sees the message, and the rest of the answer is lost.
    pub fn after(direction: Direction, message: usize) -> Self {
        Self::new(direction, message, When::After)
    }

    /// Cuts the client before one of its messages, and keeps the messages for later.
    ///
    /// Held back are this one and the following up to the next that asks for an answer. The
    /// client's end is closed at once; the server's stays open, and gets them on
    /// [`WireProxy::release`]: so a commit arrives after its sender has given it up.
    pub fn delayed(message: usize) -> Self {
        Self::new(Direction::FromClient, message, When::Delayed)
    }

    /// Counts from the first message that belongs to a statement whose SQL contains `text`, on
    /// the connection of that message only.
    ///
    /// Such a message is `Parse`, `Describe`, `Bind`, `Execute` or `Query`; it is number 0 from
    /// the client, and the first one after it is number 0 from the server.
    pub fn at_statement(mut self, text: impl Into<String>) -> Self {
        self.statement = Some(text.into());
        self
    }

    fn new(direction: Direction, message: usize, when: When) -> Self {
        Self {
            direction,
            message,
            when,
            statement: None,
        }
    }
}

/// What becomes of the message at which a cut strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
    Delayed,
}

/// The types of frontend messages that matter here.
mod frontend {
    pub(super) const BIND: u8 = b'B';
    pub(super) const CLOSE: u8 = b'C';
    pub(super) const COPY_DATA: u8 = b'd';
    pub(super) const COPY_DONE: u8 = b'c';
    pub(super) const COPY_FAIL: u8 = b'f';
    pub(super) const DESCRIBE: u8 = b'D';
    pub(super) const EXECUTE: u8 = b'E';
    pub(super) const FLUSH: u8 = b'H';
    pub(super) const FUNCTION_CALL: u8 = b'F';
    pub(super) const PARSE: u8 = b'P';
    pub(super) const QUERY: u8 = b'Q';
    pub(super) const SYNC: u8 = b'S';
    pub(super) const TERMINATE: u8 = b'X';
}

/// The types of backend messages that matter here.
mod backend {
    pub(super) const COPY_BOTH: u8 = b'W';
    pub(super) const COPY_IN: u8 = b'G';
    pub(super) const READY_FOR_QUERY: u8 = b'Z';
}

/// One message in a buffer.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    tag: u8,
    body: &'a [u8],
    /// Its length in the buffer, all included.
    length: usize,
}

impl<'a> Message<'a> {
    /// Finds the message at the start of a buffer, or nothing if it is not there completely.
    fn first(buffer: &'a [u8]) -> io::Result<Option<Self>> {
        let Some((&tag, rest)) = buffer.split_first() else {
            return Ok(None);
        };
        let Some((length, _)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        // The length counts itself, and not the tag.
        let length = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .filter(|length| *length >= 4)
            .ok_or_else(|| malformed("a message of impossible length"))?;
        Ok(rest.get(4..length).map(|body| Self {
            tag,
            body,
            length: length + 1,
        }))
    }
}

/// Splits the text at the start of `bytes` from what follows its terminator.
fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Reads the SQL at the start of `bytes`.
fn sql_in(bytes: &[u8]) -> Option<Arc<str>> {
    let (sql, _) = split_text(bytes)?;
    Some(String::from_utf8_lossy(sql).into())
}

/// What the prepared statements and portals of one connection stand for, by name.
#[derive(Debug, Default)]
struct Names {
    statements: HashMap<Vec<u8>, Arc<str>>,
    portals: HashMap<Vec<u8>, Arc<str>>,
}

impl Names {
    /// Learns from a message of the client, and returns the SQL that it is about.
    fn sql_of(&mut self, message: &Message<'_>) -> Option<Arc<str>> {
        match message.tag {
            frontend::QUERY => sql_in(message.body),
            frontend::PARSE => {
                let (statement, rest) = split_text(message.body)?;
                let sql = sql_in(rest)?;
                self.statements.insert(statement.to_vec(), Arc::clone(&sql));
                Some(sql)
            }
            frontend::BIND => {
                let (portal, rest) = split_text(message.body)?;
                let (statement, _) = split_text(rest)?;
                let sql = Arc::clone(self.statements.get(statement)?);
                self.portals.insert(portal.to_vec(), Arc::clone(&sql));
                Some(sql)
            }
            frontend::EXECUTE => {
                let (portal, _) = split_text(message.body)?;
                self.portals.get(portal).cloned()
            }
            frontend::DESCRIBE => {
                let (kind, rest) = message.body.split_first()?;
                let (name, _) = split_text(rest)?;
                self.of_kind(*kind)?.get(name).cloned()
            }
            frontend::CLOSE => {
                let (kind, rest) = message.body.split_first()?;
                let (name, _) = split_text(rest)?;
                self.of_kind(*kind)?.remove(name);
                None
            }
            _ => None,
        }
    }

    fn of_kind(&mut self, kind: u8) -> Option<&mut HashMap<Vec<u8>, Arc<str>>> {
        match kind {
            b'S' => Some(&mut self.statements),
            b'P' => Some(&mut self.portals),
            _ => None,
        }
    }
}

/// What the server still owes to the client of one connection.
#[derive(Debug, Default)]
struct Answers {
    /// For each request without a `ReadyForQuery` so far, whether it is a ping.
    open: VecDeque<bool>,
    /// The last message of the client needs a `Sync` after it.
    unsynced: bool,
    /// The server takes the data of a COPY, and says nothing before its end.
    copying: bool,
}

impl Answers {
    /// Returns whether a message of the client would be a ping, at this point.
    fn is_ping(&self, tag: u8) -> bool {
        tag == frontend::SYNC && !self.unsynced
    }

    fn note_from_client(&mut self, tag: u8) {
        match tag {
            frontend::SYNC | frontend::QUERY | frontend::FUNCTION_CALL => {
                self.open.push_back(self.is_ping(tag));
                self.unsynced = false;
            }
            frontend::COPY_DONE | frontend::COPY_FAIL => self.copying = false,
            frontend::COPY_DATA => {}
            _ => self.unsynced = true,
        }
    }

    /// Returns whether the message answers a ping.
    fn note_from_server(&mut self, tag: u8) -> bool {
        match tag {
            backend::READY_FOR_QUERY => {
                self.copying = false;
                self.open.pop_front() == Some(true)
            }
            backend::COPY_IN | backend::COPY_BOTH => {
                self.copying = true;
                false
            }
            _ => false,
        }
    }

    fn are_complete(&self) -> bool {
        self.open.is_empty() || self.copying
    }
}

/// How far a cut has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not struck.
    Whole,
    /// The server is done, the client is about to notice.
    Cut,
    /// The client's end is closed.
    Closed,
}

/// A cut that has not struck.
#[derive(Debug)]
struct Armed {
    cut: Cut,
    /// How many messages were counted.
    passed: usize,
    /// The connection on which the statement of the cut was seen.
    connection: Option<u64>,
}

/// What all connections change.
#[derive(Debug, Default)]
struct State {
    counts: Counts,
    log: Vec<Arc<str>>,
    armed: Option<Armed>,
    /// The type of the message at which the last cut struck.
    struck: Option<u8>,
    /// Tells a cut from an earlier one that is still being carried out.
    generation: u64,
}

impl State {
    /// Counts a message for the armed cut, and says whether it strikes there.
    fn strikes(
        &mut self,
        connection: u64,
        direction: Direction,
        tag: u8,
        sql: Option<&str>,
    ) -> Option<When> {
        let armed = self.armed.as_mut()?;
        if let Some(text) = &armed.cut.statement {
            let starts = armed.connection.is_none() && sql.is_some_and(|sql| sql.contains(text));
            if starts {
                armed.connection = Some(connection);
            } else if armed.connection != Some(connection) {
                return None;
            }
        }
        if direction != armed.cut.direction {
            return None;
        }
        if armed.passed < armed.cut.message {
            armed.passed += 1;
            return None;
        }
        let when = armed.cut.when;
        self.armed = None;
        self.struck = Some(tag);
        Some(when)
    }

    fn count_from_client(&mut self, tag: u8, sql: Option<Arc<str>>) {
        self.counts.add_from_client(tag);
        if matches!(tag, frontend::EXECUTE | frontend::QUERY) {
            let sql = sql.unwrap_or_else(|| "(a statement prepared in a way unknown here)".into());
            self.log.push(sql);
        }
    }
}

/// What the handle and all connections share.
#[derive(Debug)]
struct Shared {
    upstream: Upstream,
    state: Mutex<State>,
    /// In nanoseconds.
    delay: AtomicU64,
    /// Of the cut of the newest generation.
    stage: watch::Sender<Stage>,
    /// How often [`WireProxy::release`] was called.
    releases: watch::Sender<u64>,
    /// How many connections hold messages back.
    held: watch::Sender<usize>,
    /// How often [`WireProxy::drop_connections`] was called.
    drops: watch::Sender<u64>,
}

impl Shared {
    fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            state: Mutex::default(),
            delay: AtomicU64::new(0),
            stage: watch::Sender::new(Stage::Whole),
            releases: watch::Sender::new(0),
            held: watch::Sender::new(0),
            drops: watch::Sender::new(0),
        }
    }

    /// Moves a cut on, unless another was armed since it struck.
    fn advance(&self, generation: u64, stage: Stage) {
        let state = lock(&self.state);
        if state.generation == generation {
            self.stage.send_replace(stage);
        }
    }
}

/// The cut of one connection.
#[derive(Debug, Clone, Copy)]
struct Struck {
    direction: Direction,
    generation: u64,
}

/// What the two directions of one connection know of each other.
#[derive(Debug, Default)]
struct Session {
    /// The server has completed the opening.
    opened: bool,
    names: Names,
    answers: Answers,
    struck: Option<Struck>,
}

impl Session {
    fn note_cut(&mut self, cut: Option<When>, direction: Direction, generation: u64) {
        if cut.is_some() {
            self.struck = Some(Struck {
                direction,
                generation,
            });
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Link {
    id: u64,
    shared: Arc<Shared>,
    session: Mutex<Session>,
}

/// What a look through a buffer found.
#[derive(Debug)]
struct Scan {
    /// The length of the messages to forward.
    forward: usize,
    /// The length of all messages seen. It differs only if a cut strikes before the last.
    seen: usize,
    cut: Option<When>,
}

impl Link {
    /// Goes through the complete messages of a buffer, to the end or to a cut.
    fn scan(&self, direction: Direction, buffer: &[u8]) -> io::Result<Scan> {
        let mut seen = 0;
        while let Some(message) = Message::first(&buffer[seen..])? {
            let cut = match direction {
                Direction::FromClient => self.see_from_client(&message),
                Direction::FromServer => self.see_from_server(message.tag),
            };
            let before = seen;
            seen += message.length;
            let forward = match cut {
                None => continue,
                Some(When::After) => seen,
                Some(When::Before | When::Delayed) => before,
            };
            return Ok(Scan { forward, seen, cut });
        }
        Ok(Scan {
            forward: seen,
            seen,
            cut: None,
        })
    }

    fn see_from_client(&self, message: &Message<'_>) -> Option<When> {
        let mut session = lock(&self.session);
        let sql = session.names.sql_of(message);
        if !session.opened {
            return None;
        }
        let mut state = lock(&self.shared.state);
        let mut cut = None;
        if !session.answers.is_ping(message.tag) {
            let direction = Direction::FromClient;
            cut = state.strikes(self.id, direction, message.tag, sql.as_deref());
            session.note_cut(cut, direction, state.generation);
        }
        if matches!(cut, None | Some(When::After)) {
            state.count_from_client(message.tag, sql);
            session.answers.note_from_client(message.tag);
        }
        cut
    }

    fn see_from_server(&self, tag: u8) -> Option<When> {
        let mut session = lock(&self.session);
        if !session.opened {
            session.opened = tag == backend::READY_FOR_QUERY;
            return None;
        }
        let ping = session.answers.note_from_server(tag);
        let mut state = lock(&self.shared.state);
        let mut cut = None;
        if !ping {
            let direction = Direction::FromServer;
            cut = state.strikes(self.id, direction, tag, None);
            session.note_cut(cut, direction, state.generation);
        }
        if cut != Some(When::Before) {
            state.counts.add_from_server(tag, ping);
        }
        cut
    }

    /// Goes through a buffer of messages to hold back, up to the next that asks for an answer.
    ///
    /// Returns their length, and whether there was such a message.
    fn scan_held(&self, buffer: &[u8]) -> io::Result<(usize, bool)> {
        let mut length = 0;
        while let Some(message) = Message::first(&buffer[length..])? {
            let sql = lock(&self.session).names.sql_of(&message);
            lock(&self.shared.state).count_from_client(message.tag, sql);
            length += message.length;
            let last = matches!(
                message.tag,
                frontend::COPY_DONE
                    | frontend::COPY_FAIL
                    | frontend::FLUSH
                    | frontend::FUNCTION_CALL
                    | frontend::QUERY
                    | frontend::SYNC
                    | frontend::TERMINATE
            );
            if last {
                return Ok((length, true));
            }
        }
        Ok((length, false))
    }

    fn struck(&self) -> Option<Struck> {
        lock(&self.session).struck
    }

    fn advance(&self, stage: Stage) {
        if let Some(struck) = self.struck() {
            self.shared.advance(struck.generation, stage);
        }
    }

    fn answers_are_complete(&self) -> bool {
        lock(&self.session).answers.are_complete()
    }

    /// Reads and drops what the server says, until it has answered everything or is gone.
    async fn swallow(&self, reader: &mut Reader, mut buffer: Vec<u8>) -> io::Result<()> {
        loop {
            let mut seen = 0;
            while let Some(message) = Message::first(&buffer[seen..])? {
                lock(&self.session).answers.note_from_server(message.tag);
                seen += message.length;
            }
            buffer.drain(..seen);
            buffer.reserve(ROOM);
            if self.answers_are_complete() || reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }
}

impl Drop for Link {
    /// Ends the wait for a cut, also where the connection was dropped while it was carried out.
    fn drop(&mut self) {
        self.advance(Stage::Closed);
    }
}

/// How much is read at once, in bytes.
const ROOM: usize = 16 * 1024;

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// One direction of one connection.
struct Lane<'a> {
    link: &'a Link,
    reader: Reader,
    writer: Writer,
    /// What was read and not yet forwarded: after a scan, an incomplete message.
    buffer: Vec<u8>,
    /// What is under way, and when it arrives.
    delayed: VecDeque<(Instant, Vec<u8>)>,
    /// Wakes up when the first of `delayed` arrives.
    timer: Option<JoinHandle<()>>,
}

impl<'a> Lane<'a> {
    fn new(link: &'a Link, reader: Reader, writer: Writer) -> Self {
        Self {
            link,
            reader,
            writer,
            buffer: Vec::new(),
            delayed: VecDeque::new(),
            timer: None,
        }
    }

    /// Forwards what the client says, until it ends, a cut strikes or the server is gone.
    ///
    /// Returns what a cut holds back.
    async fn run_from_client(&mut self) -> Vec<u8> {
        let held = self.try_run_from_client().await;
        if self.link.struck().is_none() {
            // The server may still have something to say to a client that listens.
            let _ = self.writer.shutdown().await;
        }
        held.unwrap_or_default()
    }

    async fn try_run_from_client(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let scan = self.link.scan(Direction::FromClient, &self.buffer)?;
            self.forward(scan.forward).await?;
            if scan.cut == Some(When::Delayed) {
                return self.hold().await;
            }
            if scan.cut.is_some() || !self.fill().await? {
                self.finish().await?;
                return Ok(Vec::new());
            }
            if self.link.struck().is_some() {
                // The other lane was cut, and decides when the connection ends. It waits for the
                // answers to what is still under way here.
                self.finish().await?;
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reads the messages to hold back; the first of them is in the buffer.
    async fn hold(&mut self) -> io::Result<Vec<u8>> {
        let mut held = Vec::new();
        loop {
            let (length, complete) = self.link.scan_held(&self.buffer)?;
            held.extend(self.buffer.drain(..length));
            if complete || !self.fill().await? {
                self.finish().await?;
                return Ok(held);
            }
        }
    }

    /// Forwards what the server says, until it ends, a cut has struck or the client is gone.
    async fn run_from_server(&mut self) {
        // An error is one of the sides gone, which is the end as well.
        let _ = self.try_run_from_server().await;
    }

    async fn try_run_from_server(&mut self) -> io::Result<()> {
        loop {
            if self.link.struck().is_some() {
                // The other lane was cut.
                let rest = std::mem::take(&mut self.buffer);
                self.link.swallow(&mut self.reader, rest).await?;
                return self.finish().await;
            }
            let scan = self.link.scan(Direction::FromServer, &self.buffer)?;
            if scan.cut.is_some() {
                let rest = self.buffer.split_off(scan.seen);
                self.link.swallow(&mut self.reader, rest).await?;
                // Before the last message goes out: the client may be content with it.
                self.link.advance(Stage::Cut);
                self.forward(scan.forward).await?;
                return self.finish().await;
            }
            self.forward(scan.forward).await?;
            if !self.fill().await? {
                return self.finish().await;
            }
        }
    }

    /// Reads more into the buffer, and sees to it that what is under way arrives meanwhile.
    ///
    /// Returns whether there was more.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(ROOM);
        loop {
            let Some((due, _)) = self.delayed.front() else {
                return Ok(self.reader.read_buf(&mut self.buffer).await? > 0);
            };
            let timer = self.timer.get_or_insert_with(|| timer(*due));
            tokio::select! {
                biased;
                _ = timer => {
                    self.timer = None;
                    self.deliver_first().await?;
                }
                read = self.reader.read_buf(&mut self.buffer) => return Ok(read? > 0),
            }
        }
    }

    /// Sends off the first `length` bytes of the buffer.
    async fn forward(&mut self, length: usize) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let rest = self.buffer.split_off(length);
        let chunk = std::mem::replace(&mut self.buffer, rest);
        let delay = Duration::from_nanos(self.link.shared.delay.load(Ordering::Relaxed));
        if delay.is_zero() && self.delayed.is_empty() {
            return self.writer.write_all(&chunk).await;
        }
        self.delayed.push_back((Instant::now() + delay, chunk));
        Ok(())
    }

    /// Waits until everything sent off has arrived.
    async fn finish(&mut self) -> io::Result<()> {
        while let Some((due, _)) = self.delayed.front() {
            let timer = self.timer.get_or_insert_with(|| timer(*due));
            let _ = timer.await;
            self.timer = None;
            self.deliver_first().await?;
        }
        Ok(())
    }

    async fn deliver_first(&mut self) -> io::Result<()> {
        match self.delayed.pop_front() {
            Some((_, chunk)) => self.writer.write_all(&chunk).await,
            None => Ok(()),
        }
    }
}

/// Wakes up at `due`.
///
/// tokio's own timers count in milliseconds, which is more than some of the delays asked for.
fn timer(due: Instant) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    })
}

/// Where the server is.
#[derive(Debug)]
enum Upstream {
    Tcp(String),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Upstream {
    fn of(options: &PgConnectOptions) -> Self {
        #[cfg(unix)]
        if let Some(directory) = options.get_socket() {
            return Self::Unix(directory.join(format!(".s.PGSQL.{}", options.get_port())));
        }
        Self::Tcp(format!("{}:{}", options.get_host(), options.get_port()))
    }

    async fn connect(&self) -> io::Result<(Reader, Writer)> {
        match self {
            Self::Tcp(address) => {
                let server = TcpStream::connect(address).await?;
                server.set_nodelay(true)?;
                let (reader, writer) = server.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
            #[cfg(unix)]
            Self::Unix(path) => {
                let (reader, writer) = UnixStream::connect(path).await?.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
        }
    }
}

/// Takes connections until it is aborted, and ends them with itself.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for id in 0.. {
        let client = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => break client,
                    // The client has already gone.
                    Err(_) => tokio::task::yield_now().await,
                },
                Some(_) = connections.join_next() => {}
            }
        };
        let link = Link {
            id,
            shared: Arc::clone(&shared),
            session: Mutex::default(),
        };
        let mut drops = shared.drops.subscribe();
        connections.spawn(async move {
            tokio::select! {
                biased;
                _ = drops.changed() => {}
                // An error is one of the two sides gone; the other notices by the close.
                _ = serve(client, link) => {}
            }
        });
    }
}

/// Runs one connection to its end.
async fn serve(mut client: TcpStream, link: Link) -> io::Result<()> {
    client.set_nodelay(true)?;
    let startup = read_startup(&mut client).await?;
    let (from_server, mut to_server) = link.shared.upstream.connect().await?;
    to_server.write_all(&startup).await?;
    let (from_client, to_client) = client.into_split();

    let mut requests = Lane::new(&link, Box::new(from_client), to_server);
    let mut answers = Lane::new(&link, from_server, Box::new(to_client));
    let held = run(&mut requests, &mut answers).await;
    if link.struck().is_none() {
        return Ok(());
    }

    // Before anyone can know of the cut and wait for the delivery.
    let _held = (!held.is_empty()).then(|| Held::new(&link.shared));
    let mut releases = link.shared.releases.subscribe();
    link.advance(Stage::Cut);
    drop((requests.reader, answers.writer));
    link.advance(Stage::Closed);
    if held.is_empty() {
        return Ok(());
    }

    let _ = releases.changed().await;
    let mut sent = 0;
    while let Some(message) = Message::first(&held[sent..])? {
        lock(&link.session).answers.note_from_client(message.tag);
        sent += message.length;
    }
    requests.writer.write_all(&held).await?;
    link.swallow(&mut answers.reader, answers.buffer).await
}

/// Runs both lanes of a connection to its end, or to a cut and the answers due by then.
///
/// Returns what a cut holds back.
async fn run(requests: &mut Lane<'_>, answers: &mut Lane<'_>) -> Vec<u8> {
    let link = requests.link;
    // A lane must not be dropped in the middle of a write if its buffer is needed later: each is
    // polled to its end wherever it can have more to do.
    let mut requests = pin!(requests.run_from_client());
    let mut answers = pin!(answers.run_from_server());
    tokio::select! {
        biased;
        held = &mut requests => {
            let done = link.struck().is_some() && link.answers_are_complete();
            if !done {
                answers.await;
            }
            held
        }
        () = &mut answers => match link.struck() {
            Some(Struck { direction: Direction::FromClient, .. }) => requests.await,
            _ => Vec::new(),
        },
    }
}

/// Counts one connection that holds messages back.
struct Held<'a>(&'a Shared);

impl<'a> Held<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.held.send_modify(|held| *held += 1);
        Self(shared)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}

/// Reads the one message that has no type, and refuses encryption if it is asked for first.
async fn read_startup(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    const SSL_REQUEST: i32 = 80_877_103;
    const GSSENC_REQUEST: i32 = 80_877_104;
    // What the server itself allows.
    const LIMIT: usize = 10_000;
    loop {
        let length = client.read_i32().await?;
        let code = client.read_i32().await?;
        if matches!(code, SSL_REQUEST | GSSENC_REQUEST) {
            client.write_all(b"N").await?;
            continue;
        }
        let rest = usize::try_from(length)
            .ok()
            .filter(|length| *length <= LIMIT)
            .and_then(|length| length.checked_sub(8))
            .ok_or_else(|| malformed("a first message of impossible length"))?;
        let mut message = Vec::with_capacity(rest + 8);
        message.extend(length.to_be_bytes());
        message.extend(code.to_be_bytes());
        message.resize(rest + 8, 0);
        client.read_exact(&mut message[8..]).await?;
        return Ok(message);
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Locks what no code leaves half changed, so a panic of another holder does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::TestDatabase;
    use sqlx::postgres::{PgPoolCopyExt, PgPoolOptions};
    use sqlx::{Connection, PgConnection, PgPool};

    const INSERT: &str = "INSERT INTO note (id) VALUES ($1)";

    /// A database with a table, a proxy before it, and a connection past the proxy.
    struct Fixture {
        database: TestDatabase,
        proxy: WireProxy,
        observer: PgConnection,
    }

    impl Fixture {
        async fn new() -> Self {
            let database = TestDatabase::create().await;
            let proxy = WireProxy::start(database.url()).await;
            let mut observer = PgConnection::connect(database.url()).await.unwrap();
            sqlx::raw_sql("CREATE TABLE note (id int PRIMARY KEY)")
                .execute(&mut observer)
                .await
                .unwrap();
            Self {
                database,
                proxy,
                observer,
            }
        }

        /// Connects through the proxy, and has the INSERT prepared.
        async fn client(&self) -> PgConnection {
            let mut client = PgConnection::connect(self.proxy.url()).await.unwrap();
            sqlx::query("SELECT 1").execute(&mut client).await.unwrap();
            let mut prepare = client.begin().await.unwrap();
            sqlx::query(INSERT)
                .bind(-1)
                .execute(&mut *prepare)
                .await
                .unwrap();
            prepare.rollback().await.unwrap();
            client.ping().await.unwrap();
            client
        }

        /// Returns whether the row is there, as seen now.
        async fn has(&mut self, id: i32) -> bool {
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM note WHERE id = $1)")
                .bind(id)
                .fetch_one(&mut self.observer)
                .await
                .unwrap()
        }

        /// Returns whether the row is there when all who have touched the table have ended.
        async fn has_at_last(&mut self, id: i32) -> bool {
            let mut transaction = self.observer.begin().await.unwrap();
            sqlx::raw_sql("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
                .execute(&mut *transaction)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
            self.has(id).await
        }
    }

    async fn insert(client: &mut PgConnection, id: i32) -> sqlx::Result<()> {
        sqlx::query(INSERT)
            .bind(id)
            .execute(client)
            .await
            .map(|_| ())
    }

    #[tokio::test]
    async fn counts_each_message_of_a_known_sequence() {
        let fixture = Fixture::new().await;
        let proxy = &fixture.proxy;
        let mut client = PgConnection::connect(proxy.url()).await.unwrap();
        assert_eq!(proxy.counts(), Counts::default(), "opening does not count");

        insert(&mut client, 1).await.unwrap();
        let first = proxy.counts();
        let expected = Counts {
            executes: 1,
            parses: 1,
            syncs: 2,
            round_trips: 2,
            client_messages: 7, // Parse Describe Sync, Bind Execute Close Sync
            server_messages: 8, // 1 t n Z, 2 C 3 Z
            ..Counts::default()
        };
        assert_eq!(first, expected);

        insert(&mut client, 2).await.unwrap();
        let second = proxy.counts();
        let expected = Counts {
            executes: 1,
            syncs: 1,
            round_trips: 1,
            client_messages: 4,
            server_messages: 4,
            ..Counts::default()
        };
        assert_eq!(second.since(&first), expected, "prepared already");

        sqlx::raw_sql("SELECT 1; SELECT 2")
            .execute(&mut client)
            .await
            .unwrap();
        let third = proxy.counts();
        let expected = Counts {
            simple_queries: 1,
            round_trips: 1,
            client_messages: 1,
            server_messages: 7, // T D C, T D C, Z
            ..Counts::default()
        };
        assert_eq!(third.since(&second), expected);

        client.ping().await.unwrap();
        let ping = proxy.counts().since(&third);
        let expected = Counts {
            syncs: 1,
            round_trips: 1,
            pings: 1,
            client_messages: 1,
            server_messages: 1,
            ..Counts::default()
        };
        assert_eq!(ping, expected);
        assert_eq!(ping.statements(), 0);
        assert_eq!(ping.round_trips_without_pings(), 0);

        let log = [INSERT, INSERT, "SELECT 1; SELECT 2"];
        assert_eq!(proxy.statements_log(), log);
        assert_eq!(proxy.statements_since(&first), log[1..]);
    }

    #[tokio::test]
    async fn names_the_statements_of_several_connections() {
        let fixture = Fixture::new().await;
        let proxy = &fixture.proxy;
        let mut one = PgConnection::connect(proxy.url()).await.unwrap();
        let mut two = PgConnection::connect(proxy.url()).await.unwrap();
        // Both call their first statement by the same name.
        for _ in 0..2 {
            sqlx::query("SELECT 1").execute(&mut one).await.unwrap();
            sqlx::query("SELECT 2").execute(&mut two).await.unwrap();
            sqlx::query("SELECT 3")
                .persistent(false)
                .execute(&mut one)
                .await
                .unwrap();
        }
        let log = ["SELECT 1", "SELECT 2", "SELECT 3"];
        assert_eq!(proxy.statements_log(), [log, log].concat());
    }

    #[tokio::test]
    async fn the_log_has_one_entry_for_each_statement_of_a_pool() {
        let fixture = Fixture::new().await;
        let pool = PgPool::connect(fixture.proxy.url()).await.unwrap();
        let mut tasks = JoinSet::new();
        for id in 0..50 {
            let pool = pool.clone();
            tasks.spawn(async move {
                sqlx::query(INSERT).bind(id).execute(&pool).await.unwrap();
            });
        }
        tasks.join_all().await;
        let counts = fixture.proxy.counts();
        assert_eq!(counts.statements(), 50);
        assert_eq!(
            counts.round_trips_without_pings(),
            counts.parses + counts.executes
        );
        assert_eq!(fixture.proxy.statements_log(), [INSERT; 50]);
    }

    #[tokio::test]
    async fn a_cut_at_each_message_of_a_client_decides_what_the_server_has_done() {
        let mut fixture = Fixture::new().await;
        let mut id = 0;
        type Make = fn(Direction, usize) -> Cut;
        // A statement outside of a transaction commits on its Sync.
        for (when, cut, commits) in [
            ("before", Cut::before as Make, ""),
            ("after", Cut::after as Make, "S"),
        ] {
            let mut struck = String::new();
            for message in 0.. {
                id += 1;
                let mut client = fixture.client().await;
                fixture.proxy.arm(cut(Direction::FromClient, message));
                let outcome = insert(&mut client, id).await;
                let Some(tag) = fixture.proxy.cut_message() else {
                    outcome.expect("nothing was cut");
                    assert!(!fixture.proxy.was_cut());
                    fixture.proxy.disarm();
                    break;
                };
                struck.push(tag);
                assert!(fixture.proxy.was_cut());
                let error = outcome.expect_err("no answer arrives");
                assert!(matches!(error, sqlx::Error::Io(_)), "{error:?}");
                fixture.proxy.wait_cut().await;

                let committed = commits.contains(tag);
                if committed {
                    assert!(fixture.has(id).await, "{when} {tag}: there at once");
                }
                assert_eq!(fixture.has_at_last(id).await, committed, "{when} {tag}");
            }
            assert_eq!(struck, "BECS", "{when}");
        }
    }

    #[tokio::test]
    async fn a_cut_at_each_message_of_the_server_finds_the_work_done() {
        let mut fixture = Fixture::new().await;
        let mut id = 0;
        type Make = fn(Direction, usize) -> Cut;
        for (cut, arrives) in [(Cut::before as Make, ""), (Cut::after as Make, "Z")] {
            let mut struck = String::new();
            for message in 0.. {
                id += 1;
                let mut client = fixture.client().await;
                fixture.proxy.arm(cut(Direction::FromServer, message));
                let outcome = insert(&mut client, id).await;
                let Some(tag) = fixture.proxy.cut_message() else {
                    outcome.expect("nothing was cut");
                    fixture.proxy.disarm();
                    break;
                };
                struck.push(tag);
                assert!(fixture.proxy.was_cut());
                assert_eq!(outcome.is_ok(), arrives.contains(tag), "{tag}");
                assert!(fixture.has(id).await, "{tag}: there at once");

                fixture.proxy.wait_cut().await;
                client.ping().await.expect_err("the connection is closed");
            }
            assert_eq!(struck, "2C3Z");
        }
    }

    #[tokio::test]
    async fn a_simple_query_is_cut_as_a_whole() {
        let mut fixture = Fixture::new().await;
        for (id, cut, committed) in [
            (1, Cut::before as fn(_, _) -> _, false),
            (2, Cut::after, true),
        ] {
            let mut client = fixture.client().await;
            fixture.proxy.arm(cut(Direction::FromClient, 0));
            let sql = sqlx::AssertSqlSafe(format!("INSERT INTO note VALUES ({id})"));
            sqlx::raw_sql(sql)
                .execute(&mut client)
                .await
                .expect_err("no answer arrives");
            assert_eq!(fixture.proxy.cut_message(), Some('Q'));
            assert_eq!(fixture.has_at_last(id).await, committed);
        }
    }

    #[tokio::test]
    async fn a_delayed_statement_arrives_on_release() {
        let mut fixture = Fixture::new().await;
        for message in 0..4 {
            let id = 10 + i32::try_from(message).unwrap();
            let mut client = fixture.client().await;
            fixture.proxy.arm(Cut::delayed(message));
            insert(&mut client, id)
                .await
                .expect_err("the client is cut");
            assert!(fixture.proxy.was_cut());
            fixture.proxy.wait_cut().await;
            assert!(!fixture.has(id).await, "held back at message {message}");

            fixture.proxy.release();
            fixture.proxy.wait_delivered().await;
            assert!(fixture.has(id).await, "delivered from message {message}");
        }
        // Each was counted once, though it was sent in two parts: 4 here, 4 when prepared.
        let inserts = fixture.proxy.statements_log();
        assert_eq!(inserts.iter().filter(|sql| *sql == INSERT).count(), 8);
    }

    #[tokio::test]
    async fn a_delayed_commit_keeps_its_transaction_open() {
        let mut fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        fixture.proxy.arm(Cut::delayed(0).at_statement("COMMIT"));
        let mut transaction = client.begin().await.unwrap();
        insert(&mut transaction, 1).await.unwrap();
        transaction
            .commit()
            .await
            .expect_err("the answer is still out");
        assert!(!fixture.has(1).await);

        // Somebody tries the same again and has to wait for the first to end. That it waits is
        // seen in the catalog of the server, not guessed from the time.
        let mut second = PgConnection::connect(fixture.database.url()).await.unwrap();
        let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut second)
            .await
            .unwrap();
        let again = tokio::spawn(async move { insert(&mut second, 1).await });
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)";
        while !sqlx::query_scalar::<_, bool>(waits)
            .bind(process)
            .fetch_one(&mut fixture.observer)
            .await
            .unwrap()
        {
            tokio::task::yield_now().await;
        }

        fixture.proxy.release();
        fixture.proxy.wait_delivered().await;
        assert!(fixture.has(1).await);
        let error = again.await.unwrap().expect_err("the first came through");
        assert!(error.as_database_error().unwrap().is_unique_violation());
    }

    #[tokio::test]
    async fn what_is_never_released_is_never_done() {
        let mut fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        fixture.proxy.release(); // nothing is held yet, so nothing comes of it
        fixture.proxy.arm(Cut::delayed(1));
        insert(&mut client, 1).await.expect_err("the client is cut");
        fixture.proxy.drop_connections();
        fixture.proxy.wait_delivered().await;
        assert!(!fixture.has_at_last(1).await);
    }

    #[tokio::test]
    async fn a_cut_at_a_statement_leaves_others_alone() {
        let mut fixture = Fixture::new().await;
        let mut other = fixture.client().await;
        let mut client = fixture.client().await;
        fixture
            .proxy
            .arm(Cut::before(Direction::FromClient, 3).at_statement("INTO note"));
        for _ in 0..5 {
            sqlx::query("SELECT 1").execute(&mut other).await.unwrap();
            sqlx::query("SELECT 1").execute(&mut client).await.unwrap();
        }
        insert(&mut client, 1).await.expect_err("cut at its Sync");
        assert_eq!(fixture.proxy.cut_message(), Some('S'));
        assert!(!fixture.has_at_last(1).await);

        insert(&mut other, 2).await.unwrap();
        let mut new = PgConnection::connect(fixture.proxy.url()).await.unwrap();
        insert(&mut new, 3).await.unwrap();
        assert!(fixture.has(2).await && fixture.has(3).await);
    }

    #[tokio::test]
    async fn a_cut_at_a_statement_counts_answers_from_there() {
        let mut fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        let cut = Cut::before(Direction::FromServer, 0).at_statement("INTO note");
        fixture.proxy.arm(cut);
        sqlx::query("SELECT 1").execute(&mut client).await.unwrap();
        insert(&mut client, 1).await.expect_err("its answer is cut");
        assert_eq!(fixture.proxy.cut_message(), Some('2'));
        assert!(fixture.has(1).await);
    }

    #[tokio::test]
    async fn the_pings_of_a_pool_are_not_cut() {
        let fixture = Fixture::new().await;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect(fixture.proxy.url())
            .await
            .unwrap();
        for direction in [Direction::FromClient, Direction::FromServer] {
            let earlier = fixture.proxy.counts();
            fixture.proxy.arm(Cut::before(direction, 0));
            for _ in 0..3 {
                drop(pool.acquire().await.unwrap());
            }
            assert!(!fixture.proxy.was_cut());
            assert!(fixture.proxy.counts().since(&earlier).pings > 0);
        }
        sqlx::query(INSERT)
            .bind(1)
            .execute(&pool)
            .await
            .expect_err("its first answer is cut");
    }

    #[tokio::test]
    async fn a_disarmed_cut_does_not_strike() {
        let fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        fixture.proxy.arm(Cut::before(Direction::FromClient, 0));
        fixture.proxy.disarm();
        insert(&mut client, 1).await.unwrap();
        assert!(!fixture.proxy.was_cut());
    }

    #[tokio::test]
    async fn a_copy_is_cut_without_waiting_for_its_data() {
        let mut fixture = Fixture::new().await;
        let pool = PgPool::connect(fixture.proxy.url()).await.unwrap();
        fixture.proxy.arm(Cut::after(Direction::FromClient, 0));
        let copy = pool.copy_in_raw("COPY note FROM STDIN").await;
        assert!(copy.is_err());
        assert_eq!(fixture.proxy.cut_message(), Some('Q'));

        fixture.proxy.arm(Cut::after(Direction::FromClient, 2));
        let mut copy = pool.copy_in_raw("COPY note FROM STDIN").await.unwrap();
        copy.send(&b"1\n"[..]).await.unwrap();
        copy.finish().await.expect_err("the answer is lost");
        assert_eq!(fixture.proxy.cut_message(), Some('c'));
        assert!(fixture.has(1).await);
    }

    #[tokio::test]
    async fn connections_can_be_dropped() {
        let fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        fixture.proxy.drop_connections();
        insert(&mut client, 1).await.expect_err("dropped");
        let mut client = fixture.client().await;
        insert(&mut client, 1).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_takes_its_server_connection_along() {
        let mut fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        let mut transaction = client.begin().await.unwrap();
        insert(&mut transaction, 1).await.unwrap();
        drop(transaction);
        // The rollback is only queued; what ends the transaction is the end of the socket.
        drop(client);
        assert!(!fixture.has_at_last(1).await);
    }

    #[tokio::test]
    async fn large_messages_pass_in_both_directions() {
        let fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        let sent: String = (0..2_000_000)
            .map(|n| char::from(b'a' + (n % 23) as u8))
            .collect();
        let received: String = sqlx::query_scalar("SELECT $1::text")
            .bind(&sent)
            .fetch_one(&mut client)
            .await
            .unwrap();
        assert!(sent == received);
    }

    #[tokio::test]
    async fn a_delay_adds_latency_and_keeps_throughput() {
        let fixture = Fixture::new().await;
        let mut client = fixture.client().await;
        let delay = Duration::from_millis(50);
        fixture.proxy.set_delay(delay);

        let start = Instant::now();
        insert(&mut client, 1).await.unwrap();
        assert!(start.elapsed() >= 2 * delay);

        // Hundreds of chunks, which would take a minute one after the other.
        let start = Instant::now();
        let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
        let rows = sqlx::query(rows).fetch_all(&mut client).await.unwrap();
        assert_eq!(rows.len(), 20_000);
        let elapsed = start.elapsed();
        assert!(elapsed >= 4 * delay, "prepared and executed");
        assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");

        fixture.proxy.arm(Cut::after(Direction::FromClient, 3));
        insert(&mut client, 2).await.expect_err("cut");
    }

    #[tokio::test]
    async fn a_request_for_encryption_is_refused() {
        let fixture = Fixture::new().await;
        let url = fixture
            .proxy
            .url()
            .replace("sslmode=disable", "sslmode=allow");
        assert_ne!(url, fixture.proxy.url());
        let mut client = PgConnection::connect(&url).await.unwrap();
        insert(&mut client, 1).await.unwrap();
        let port = options(fixture.proxy.url()).get_port();
        let mut raw = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        for code in [80_877_103, 80_877_104] {
            raw.write_i32(8).await.unwrap();
            raw.write_i32(code).await.unwrap();
            assert_eq!(raw.read_u8().await.unwrap(), b'N');
        }
    }

    #[test]
    fn a_message_is_found_when_it_is_complete() {
        let buffer = b"Q\0\0\0\x07ab\0S\0\0\0\x04";
        for end in 0..8 {
            assert!(Message::first(&buffer[..end]).unwrap().is_none());
        }
        let query = Message::first(buffer).unwrap().unwrap();
        assert_eq!(
            (query.tag, query.body, query.length),
            (b'Q', &b"ab\0"[..], 8)
        );
        let sync = Message::first(&buffer[8..]).unwrap().unwrap();
        assert_eq!((sync.tag, sync.body, sync.length), (b'S', &b""[..], 5));
    }

    #[test]
    fn a_message_of_impossible_length_is_refused() {
        for length in [-1, 0, 3] {
            let mut buffer = vec![b'Q'];
            buffer.extend(i32::to_be_bytes(length));
            let error = Message::first(&buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
