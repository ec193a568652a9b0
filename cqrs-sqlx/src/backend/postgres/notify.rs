//! Telling other processes, and hearing what they tell.
//!
//! `NOTIFY` takes a lock of the whole server until its transaction has committed: in the
//! transactions of writers it would have them commit one after the other. So it is sent after
//! them, alone.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};

use tokio::time::timeout;

use crate::backend::{Heard, Message, Topic};

/// How long nothing is told before it is asked whether the server is still there.
const QUIET: Duration = Duration::from_secs(30);

/// Every topic has a channel.
const CHANNELS: [(Topic, &str); 4] = [
    (Topic::Committed, "cqrs_committed"),
    (Topic::Operated, "cqrs_operated"),
    (Topic::Awaited, "cqrs_awaited"),
    (Topic::Arrived, "cqrs_arrived"),
];

fn channel(topic: Topic) -> &'static str {
    CHANNELS
        .iter()
        .find(|(other, _)| *other == topic)
        .map_or("", |(_, channel)| channel)
}

/// Tells who listens. A notification is not worth waiting for the disk.
pub(super) async fn tell(
    connection: &mut PgConnection,
    messages: &[Message],
) -> Result<(), sqlx::Error> {
    let channels: Vec<_> = messages.iter().map(|told| channel(told.topic)).collect();
    let contents: Vec<_> = messages.iter().map(|told| &*told.content).collect();
    sqlx::query(
        "SELECT set_config('synchronous_commit', 'off', true), pg_notify(channel, content) \
         FROM unnest($1::text[], $2::text[]) AS told (channel, content)",
    )
    .bind(channels)
    .bind(contents)
    .execute(connection)
    .await
    .map(drop)
}

/// A connection that listens.
#[derive(Debug)]
pub(crate) struct Listener(PgListener);

impl Listener {
    pub(super) async fn open(
        options: &PgConnectOptions,
        topics: &[Topic],
    ) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        let channels = topics.iter().map(|&topic| channel(topic));
        listener.listen_all(channels).await?;
        Ok(Self(listener))
    }

    /// What is told; `None` where something may have been missed, and from now on nothing is: the
    /// connection was lost, or so quiet that it may have been.
    pub(super) async fn hear(&mut self) -> Result<Option<Heard>, sqlx::Error> {
        let Ok(heard) = timeout(QUIET, self.0.try_recv()).await else {
            // Who only listens does not notice that nobody is there any more.
            let answer = timeout(QUIET, sqlx::query("SELECT").execute(&mut self.0)).await;
            answer.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
            return Ok(None);
        };
        let Some(heard) = heard? else {
            return Ok(None);
        };
        let topic = CHANNELS
            .iter()
            .find(|(_, channel)| *channel == heard.channel());
        Ok(topic.map(|&(topic, _)| Heard {
            topic,
            content: heard.payload().to_owned(),
            teller: i32::try_from(heard.process_id()).ok(),
        }))
    }
}
