//! The handle that tests hold, and the task that takes connections.

use std::cell::Cell;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::counts::Counts;
use super::cut::{Cut, Direction};
use super::link::Link;
use super::peer::Upstream;
use super::state::{Shared, Silence};
use crate::database::{options, url_through};

/// A proxy in front of one Postgres server, on a port of its own of this machine.
///
/// It takes any number of connections, each to the server on a connection of its own.
/// Dropping it closes them all; what is held back for [`release`](Self::release) is then never
/// delivered.
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
        self.shared.state().counts
    }

    /// Returns the SQL of each statement executed since `earlier`, in order.
    ///
    /// It has as many entries as [`Counts::statements`] says.
    pub fn statements_since(&self, earlier: &Counts) -> Vec<String> {
        let state = self.shared.state();
        let since = state.log.iter().skip(earlier.statements);
        since.map(ToString::to_string).collect()
    }

    /// Arms a cut, in place of an earlier one that has not struck.
    ///
    /// It strikes once; connections opened later work normally. Messages are counted from here.
    pub fn arm(&self, cut: Cut) {
        let mut state = self.shared.state();
        state.armed = Some(cut);
        state.struck = None;
    }

    /// Takes back a cut that has not struck.
    pub fn disarm(&self) {
        self.shared.state().armed = None;
    }

    /// Returns whether the cut that was armed last has struck.
    ///
    /// It is true before the client can notice.
    pub fn was_cut(&self) -> bool {
        self.cut_message().is_some()
    }

    /// Returns the type of the message at which the cut that was armed last has struck, as the
    /// protocol spells it: `S` from the client is Sync, `Z` from the server is `ReadyForQuery`.
    pub fn cut_message(&self) -> Option<char> {
        self.shared.state().struck.map(char::from)
    }

    /// Keeps notifications from clients from now on, as a pooler does that lends connections for
    /// one transaction.
    pub fn swallow_notifications(&self) {
        self.shared.state().swallowed.get_or_insert(0);
    }

    /// Returns how many notifications were kept from clients.
    pub fn swallowed(&self) -> usize {
        self.shared.state().swallowed.unwrap_or(0)
    }

    /// Closes each connection that executes SQL with this in it.
    pub fn refuse(&self, sql: &'static str) {
        self.shared.state().refused = Some(sql);
    }

    /// Closes each connection that executes SQL with this in it when the server has done it, and keeps
    /// the answer.
    pub fn keep_answers_to(&self, sql: &'static str) {
        self.shared.state().unanswered = Some(sql);
    }

    /// Lets nothing arrive any more that goes this way over the next so many connections that execute
    /// SQL with this in it, in place of an earlier order. Both ends stay open.
    ///
    /// From the client: the server never sees the statement, as behind a firewall that has forgotten
    /// the connection. From the server: it does its work, and the answer is lost, as where a host is
    /// gone.
    pub fn silence(&self, direction: Direction, connections: usize, sql: &'static str) {
        self.shared.state().to_silence = Some(Silence {
            direction,
            connections,
            sql,
        });
    }

    /// Returns how many connections have gone silent since the start.
    pub fn silent(&self) -> usize {
        self.shared.state().silent
    }

    /// Opens no further connections from now on, and leaves those who ask for one without an answer.
    pub fn fill_up(&self) {
        self.shared.state().is_full = true;
    }

    /// Opens the connections of those who wait for one, although it is full.
    pub fn admit(&self) {
        self.shared.admitted.notify_waiters();
    }

    /// Returns how many connections there are, with those without an answer.
    pub fn open(&self) -> usize {
        self.shared.state().open
    }

    /// Returns how many connections there were at most at a time, with those without an answer.
    pub fn peak(&self) -> usize {
        self.shared.state().peak
    }

    /// Lets the server have what [`Cut::delayed`] holds back at this moment, and waits until it
    /// has answered, or given the connection up.
    ///
    /// # Cancel safety
    ///
    /// What was not delivered when it is dropped never is.
    pub async fn release(&self) {
        let held = std::mem::take(&mut self.shared.state().held);
        for held in held {
            // An error is the server gone.
            let _ = held.deliver().await;
        }
    }

    /// Awaits `work`, and [releases](Self::release) what [`Cut::delayed`] holds back when the SQL that
    /// was executed since the start of this is as `is_time` says, at the latest when the work is done.
    pub async fn release_during<T>(
        &self,
        work: impl Future<Output = T>,
        is_time: impl Fn(&[String]) -> bool,
    ) -> T {
        let before = self.counts();
        let is_done = Cell::new(false);
        let work = async {
            let outcome = work.await;
            is_done.set(true);
            outcome
        };
        let release = async {
            while !is_done.get() && !is_time(&self.statements_since(&before)) {
                tokio::task::yield_now().await;
            }
            self.release().await;
        };
        tokio::join!(work, release).0
    }
}

impl Drop for WireProxy {
    fn drop(&mut self) {
        // The acceptor owns the tasks of the connections.
        self.acceptor.abort();
        self.shared.state().held.clear();
    }
}

/// A connection that is counted.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        {
            let mut state = shared.state();
            state.open += 1;
            state.peak = state.peak.max(state.open);
        }
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

/// Takes connections until it is aborted, and ends them with itself.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let open = Open::new(Arc::clone(&shared));
                    // An error is one of the two sides gone; the other notices by the close.
                    connections.spawn(async move {
                        let shared = Arc::clone(&open.0);
                        Link::open(client, shared).await?.run().await
                    });
                }
                // The client has already gone.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
