//! Inboxes: a message that arrives twice is processed once.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Harness;
use super::fixtures::Counter;
use super::support::{assert_usage, begin, err, north, ok, south, system};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::store::{Delivery, Inbox, Store};
use crate::unit_of_work::UnitOfWork;

/// A message is processed once, and its repetition returns the receipt of that.
pub async fn a_message_is_processed_once<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let system = system();
    let inbox = ok(Inbox::new("billing"));
    let mut receipts = Vec::new();
    for _ in 0..3 {
        let receipt = inbox.process(&bench.store, &system, "m/1", async |uow| {
            uow.save(Counter::new(1))
        });
        receipts.push(ok(receipt.await));
    }
    let deliveries: Vec<Delivery> = receipts.iter().map(|receipt| *receipt.output()).collect();
    assert_eq!(
        deliveries,
        [Delivery::First, Delivery::Repeated, Delivery::Repeated]
    );
    let log = bench.log().await;
    assert_eq!(log.len(), 1);
    for receipt in &receipts {
        assert_eq!(receipt.events(), [log[0].event_id()]);
        assert_eq!(receipt.position(), Some(log[0].position()));
    }
}

/// Each consumer has its own messages, in each tenant.
pub async fn messages_belong_to_their_consumer_and_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let runs = AtomicU32::new(0);
    for _ in 0..2 {
        for consumer in ["billing", "shipping"] {
            let inbox = ok(Inbox::new(consumer));
            for context in [north(), south(), system()] {
                ok(inbox
                    .process(&bench.store, &context, "m", async |_| {
                        runs.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    })
                    .await);
            }
        }
    }
    assert_eq!(runs.into_inner(), 6);
}

/// A message whose work fails is not processed: it may come again.
pub async fn a_failed_message_is_processed_again<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let system = system();
    let inbox = ok(Inbox::new("billing"));
    let refused = inbox.process(&bench.store, &system, "m", async |uow| {
        uow.save(Counter::new(1))?;
        Err(Error::other("refused"))
    });
    assert!(matches!(err(refused.await), Error::Other(_)));
    assert_eq!(bench.log().await.len(), 0);
    let again = inbox.process(&bench.store, &system, "m", async |uow| {
        uow.save(Counter::new(1))
    });
    assert_eq!(ok(again.await).output(), &Delivery::First);
    assert_eq!(bench.log().await.len(), 1);
}

/// A message that is processed while it is processed is processed once.
pub async fn the_later_of_two_deliveries_does_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let system = system();
    let (store, inbox) = (&bench.store, ok(Inbox::new("billing")));
    let (runs, inbox) = (AtomicU32::new(0), &inbox);
    let receipt = inbox.process(store, &system, "m", async |uow| {
        if runs.fetch_add(1, Ordering::Relaxed) == 0 {
            // What another process does meanwhile: the same store refuses work within work.
            let mut first = store.unit_of_work(&system);
            first.save(Counter::new(1))?;
            first.record(&ok(inbox.key("m")), "null".to_owned())?;
            let _ = first.commit().await?;
        }
        uow.save(Counter::new(2))
    });
    assert_eq!(ok(receipt.await).output(), &Delivery::Repeated);
    let log = bench.log().await;
    let ids: Vec<&str> = log.iter().map(Envelope::aggregate_id_str).collect();
    assert_eq!(ids, ["1"]);
}

/// An id that no store can hold is refused before anything is done.
pub async fn an_id_that_does_not_fit_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let system = system();
    let inbox = ok(Inbox::new("billing"));
    for id in ["", "a\0b", &"m".repeat(161)] {
        let refused = inbox.process(&bench.store, &system, id, async |_| {
            Err(Error::other("nothing runs for a message without an id"))
        });
        assert_usage(&err(refused.await));
    }
}
