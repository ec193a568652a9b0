//! A model of a pooler in transaction mode: of `PgBouncer` since 1.21, as far as clients notice.
//!
//! Clients keep their connection; each of their transactions gets one of a few connections to the
//! server. What it does as `PgBouncer` does:
//!
//! - A client is greeted by the pooler itself, with a cancel key that is none of the server. Parameters
//!   of its startup are refused, but for those that are tracked and `extra_float_digits`, which is
//!   ignored as told by `ignore_startup_parameters`.
//! - `application_name` follows the client: it is set before the transaction where another is set.
//! - Prepared statements are known by client and name, and prepared again where they are used.
//! - Whatever else a session has stays with the connection to the server: settings, locks, `LISTEN`.
//!   What is told arrives at whoever has the connection then.
//! - What a client has sent while it waits for a connection reaches the server also when the client has
//!   gone meanwhile. A client that goes in the middle of a transaction takes the connection along.
//! - When the server closes a connection, its client is told so with an error, and is closed too.
//!
//! On purpose it is worse in one thing: a transaction gets the connection that was idle for longest,
//! and all connections are opened first, so each transaction of a client has another.
//!
//! With `PGBOUNCER` set to the path of a real one, that is started instead, for all tests but those of
//! the model itself.

mod client;
mod program;
mod server;
mod startup;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use self::client::Client;
use self::program::Program;
use self::server::Server;
use super::peer::Upstream;
use crate::database::{options, url_through};

/// A pooler in transaction mode in front of one Postgres server, on a port of its own of this machine.
///
/// Dropping it closes all connections, also those to the server.
pub struct Pooler {
    url: String,
    _running: Running,
}

enum Running {
    Model(JoinHandle<()>),
    Program(#[expect(dead_code, reason = "held for its drop")] Program),
}

/// Whether a pooler gives prepared statements names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// As with `max_prepared_statements`: each client has its own.
    Renamed,
    /// As without: all clients have the same, or none, as it happens.
    AsTheyCome,
}

impl Pooler {
    /// Starts a pooler in front of the server of a Postgres URL, with so many connections to it for each
    /// user and database.
    ///
    /// The server must trust who connects to it without TLS.
    ///
    /// # Panics
    ///
    /// If `upstream` is no Postgres URL, or outside of a tokio runtime.
    pub async fn start(upstream: &str, connections: usize) -> Self {
        Self::start_with(upstream, connections, Prepared::Renamed).await
    }

    /// As [`start`](Self::start), and says what becomes of prepared statements.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(upstream: &str, connections: usize, prepared: Prepared) -> Self {
        Self::launch(upstream, connections, prepared, "").await
    }

    /// As [`start`](Self::start), with the name of an application that its connections begin with.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_named(upstream: &str, connections: usize, application_name: &str) -> Self {
        Self::launch(upstream, connections, Prepared::Renamed, application_name).await
    }

    async fn launch(
        upstream: &str,
        connections: usize,
        prepared: Prepared,
        application_name: &str,
    ) -> Self {
        let options = options(upstream);
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("this machine has a free port");
        let port = listener.local_addr().expect("the listener is bound").port();
        let running = if let Some(program) = std::env::var_os("PGBOUNCER") {
            drop(listener);
            let started = Program::start(
                program,
                &options,
                port,
                connections,
                prepared,
                application_name,
            );
            Running::Program(started.await)
        } else {
            let pools = Arc::new(Pools {
                upstream: Arc::new(Upstream::of(&options)),
                application_name: application_name.to_owned(),
                connections,
                prepared,
                pools: Mutex::default(),
            });
            Running::Model(tokio::spawn(accept(listener, pools)))
        };
        Self {
            url: url_through(options, port),
            _running: running,
        }
    }

    /// Returns the URL it was started with, leading through the pooler and without TLS.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Model(acceptor) = self {
            // It owns the tasks of the clients.
            acceptor.abort();
        }
    }
}

async fn accept(listener: TcpListener, pools: Arc<Pools>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let pools = Arc::clone(&pools);
                    // An error is one of the two sides gone; the other notices by the close.
                    clients.spawn(async move { Client::open(socket, &pools).await?.run().await });
                }
                // The client has already gone.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Who a connection to the server is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Login {
    user: String,
    database: String,
}

struct Pools {
    upstream: Arc<Upstream>,
    /// What connections to the server begin with.
    application_name: String,
    connections: usize,
    prepared: Prepared,
    pools: Mutex<HashMap<Login, Arc<Pool>>>,
}

impl Pools {
    fn of(&self, login: &Login) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(login.clone()).or_insert_with(|| {
            Arc::new(Pool {
                upstream: Arc::clone(&self.upstream),
                login: login.clone(),
                application_name: self.application_name.clone(),
                permits: Arc::new(Semaphore::new(self.connections)),
                size: self.connections,
                state: Mutex::default(),
            })
        });
        Arc::clone(pool)
    }
}

/// The connections to the server for one user and database.
struct Pool {
    upstream: Arc<Upstream>,
    login: Login,
    application_name: String,
    permits: Arc<Semaphore>,
    size: usize,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    idle: VecDeque<Server>,
    /// How many there are, with those that are lent.
    open: usize,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a connection: a new one while there may be more, else the one that was idle for
    /// longest.
    async fn take(self: &Arc<Self>) -> io::Result<Lease> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("nobody closes it");
        loop {
            let idle = {
                let mut state = self.state();
                if state.open < self.size {
                    state.open += 1;
                    None
                } else {
                    state.idle.pop_front()
                }
            };
            let server = match idle {
                None => Server::open(&self.upstream, &self.login, &self.application_name).await,
                Some(mut server) => {
                    if server.is_gone() {
                        self.state().open -= 1;
                        continue;
                    }
                    Ok(server)
                }
            };
            if server.is_err() {
                self.state().open -= 1;
            }
            return Ok(Lease {
                pool: Arc::clone(self),
                server: Some(server?),
                _permit: permit,
            });
        }
    }
}

/// A connection that is lent; closed where it is not given back.
struct Lease {
    pool: Arc<Pool>,
    server: Option<Server>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn server(&mut self) -> &mut Server {
        self.server
            .as_mut()
            .expect("it is taken out when it is given back")
    }

    fn give_back(mut self) {
        let server = self.server.take();
        let mut state = self.pool.state();
        state.idle.extend(server);
        // It is taken off when this is dropped.
        state.open += 1;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.state().open -= 1;
    }
}
