//! A server that accepts connections and says nothing.

use std::time::{Duration, Instant};

use cqrs_core::StoreErrorKind;
use cqrs_sqlx::{PgStore, StoreOptions};
use tokio::net::TcpListener;

use cqrs_integration::each::kind;

#[tokio::test]
async fn a_server_that_never_answers_is_unavailable_in_time() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move { listener.accept().await.unwrap() });
    let timeout = Duration::from_millis(500);
    let url = format!("postgres://nobody@127.0.0.1:{port}/plans?sslmode=disable");
    let options = StoreOptions::default().acquire_timeout(timeout);
    let begun = Instant::now();
    let connect = PgStore::connect_with(url.parse().unwrap(), options);
    let error = tokio::time::timeout(10 * timeout, connect)
        .await
        .expect("it gives up")
        .unwrap_err();
    assert!(begun.elapsed() >= timeout);
    assert_eq!(*kind(&error), StoreErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("did not answer within 500ms"));
    // It was not the network that refused.
    let _ = accepted.await.unwrap();
}
