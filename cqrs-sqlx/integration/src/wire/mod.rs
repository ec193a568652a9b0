//! A proxy between a client and Postgres that counts what goes over the wire, and cuts it.
//!
//! It reads the frames of the frontend/backend protocol, version 3, and forwards whole messages
//! in order. So a test can say how many statements and round trips an operation may cost, and can
//! break the connection at each message of an operation, one after the other:
//!
//! ```no_run
//! # use cqrs_integration::wire::{Cut, Direction, WireProxy};
//! # async fn commit(_: &cqrs_sqlx::PgStore) -> cqrs_core::Result<()> { Ok(()) }
//! # async fn example(url: &str) {
//! let proxy = WireProxy::start(url).await;
//! let store = cqrs_sqlx::PgStore::connect(proxy.url()).await.expect("the server is up");
//! for message in 0.. {
//!     proxy.arm(Cut::before(Direction::FromClient, message));
//!     let outcome = commit(&store).await;
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
//! The client's end is closed only when the server has answered all that was forwarded to it: who
//! sees the connection die finds the server in its final state, except for work that the server
//! gives up because its own end closes. A test waits for that with a lock on the table.
//!
//! [`Pooler`] stands at the same place and is a pooler in transaction mode; a proxy may stand before it.
//!
//! The proxy knows what sqlx sends for statements: no COPY, and no TLS. A message is written to one side
//! before more is read from the other, which is enough for a client that reads an answer before it
//! asks again.

mod counts;
mod cut;
mod link;
mod names;
mod peer;
mod pooler;
mod protocol;
mod proxy;
mod state;
#[cfg(test)]
mod tests;

pub use counts::Counts;
pub use cut::{Cut, Direction};
pub use pooler::{Pooler, Prepared};
pub use proxy::WireProxy;
