//! Idempotency keys: a command that is sent twice is done once.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Harness;
use super::fixtures::{Account, AccountForm, Counter, Ledger};
use super::support::{assert_usage, begin, err, north, ok, south, system};
use crate::error::{Error, StoreErrorKind};
use crate::idempotency::IdempotencyKey;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

fn key(text: &str) -> IdempotencyKey {
    ok(IdempotencyKey::new(text))
}

/// The repetition of a command returns the first receipt, with its output, and does nothing.
pub async fn a_repetition_returns_the_first_receipt<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let key = key("a'é😀");
    let runs = AtomicU32::new(0);
    let mut receipts = Vec::new();
    for _ in 0..3 {
        let receipt = bench
            .store
            .execute_once(&system(), &key, async |uow| {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                for id in 0..3 {
                    let mut counter = Counter::new(id);
                    counter.add(1);
                    uow.save(counter)?;
                }
                Ok((run, "output \0".to_owned()))
            })
            .await;
        receipts.push(ok(receipt));
    }
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(receipts[0].output(), &(0, "output \0".to_owned()));
    assert_eq!(receipts[0], receipts[1]);
    assert_eq!(receipts[0], receipts[2]);
    let log = bench.log().await;
    let events: Vec<_> = log
        .iter()
        .map(super::super::envelope::Envelope::event_id)
        .collect();
    assert_eq!(receipts[2].events(), events);
    assert_eq!(receipts[2].position(), Some(log[2].position()));
}

/// A command that writes nothing is recorded too.
pub async fn a_command_that_writes_nothing_is_recorded<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let key = key("nothing");
    for _ in 0..2 {
        let receipt = ok(bench
            .store
            .execute_once(&north(), &key, async |_| Ok(7))
            .await);
        assert_eq!((receipt.events().len(), receipt.position()), (0, None));
        assert_eq!(receipt.into_output(), 7);
    }
    let other = bench
        .store
        .execute_once(&north(), &key, async |_| Ok(8))
        .await;
    assert_eq!(ok(other).into_output(), 7);
}

/// A command that failed is not recorded.
pub async fn a_failed_command_is_not_recorded<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let key = key("retried");
    let refused = bench
        .store
        .execute_once(&system(), &key, async |uow| {
            let mut counter: Counter = uow.get(1).await?;
            counter.add(1);
            uow.save(counter)?;
            Err::<i64, _>(Error::other("refused"))
        })
        .await;
    assert!(matches!(err(refused), Error::Other(_)));
    let taken = bench
        .store
        .execute_once(&system(), &key, async |uow| {
            uow.save(Counter::new(1))?;
            Ok(0)
        })
        .await;
    assert!(err(taken).is_conflict());
    let done = bench
        .store
        .execute_once(&system(), &key, async |uow| {
            let mut counter: Counter = uow.get(1).await?;
            counter.add(1);
            let value = counter.value;
            uow.save(counter)?;
            Ok(value)
        })
        .await;
    assert_eq!(ok(done).into_output(), 2);
    assert_eq!(bench.log().await.len(), 2);
}

/// Each tenant has keys of its own, and so has work across tenants.
pub async fn keys_belong_to_their_scope<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let key = key("shared");
    for (context, output) in [(north(), 1), (south(), 2), (system(), 3)] {
        let done = bench
            .store
            .execute_once(&context, &key, async |_| Ok(output))
            .await;
        assert_eq!(ok(done).into_output(), output);
    }
    let again = bench
        .store
        .execute_once(&south(), &key, async |_| Ok(4))
        .await;
    assert_eq!(ok(again).into_output(), 2);
}

/// A key that is tied to one request does not answer another.
pub async fn a_key_answers_its_request_alone<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let plain = key("tied");
    let tied = ok(plain.clone().for_request(&("dispatch", 7)));
    let other = ok(plain.clone().for_request(&("dispatch", 8)));
    for _ in 0..2 {
        let done = bench
            .store
            .execute_once(&north(), &tied, async |_| Ok(1))
            .await;
        assert_eq!(ok(done).into_output(), 1);
    }
    for key in [plain, other] {
        let refused = bench
            .store
            .execute_once(&north(), &key, async |_| Ok(2))
            .await;
        match err(refused) {
            Error::Store(error) => assert_eq!(error.kind(), &StoreErrorKind::KeyReused),
            other => panic!("expected that the key is refused, got {other:?}"),
        }
    }
}

/// Of two that run at once, the later commit does nothing and returns the receipt of the earlier.
pub async fn the_later_of_two_returns_the_receipt_of_the_earlier<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let key = key("at once");
    let store = &bench.store;
    let runs = AtomicU32::new(0);
    let receipt = ok(store
        .execute_once(&system(), &key, async |uow| {
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                let mut first = store.unit_of_work(&system());
                first.save(Counter::new(1))?;
                first.record(&key, "\"first\"".to_owned())?;
                let _ = first.commit().await?;
            }
            uow.save(Counter::new(2))?;
            Ok("second".to_owned())
        })
        .await);
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(receipt.output(), "first");
    let log = bench.log().await;
    let ids: Vec<&str> = log
        .iter()
        .map(super::super::envelope::Envelope::aggregate_id_str)
        .collect();
    assert_eq!(ids, ["1"]);
    assert_eq!(receipt.events(), [log[0].event_id()]);
}

/// A unit of work records one key.
pub async fn a_unit_of_work_records_one_key<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.record(&key("one"), "1".to_owned()));
    assert_usage(&err(uow.record(&key("two"), "2".to_owned())));
    ok(uow.commit().await);
    let mut uow = bench.unit_of_work(&system());
    assert!(ok(uow.recorded(&key("two")).await).is_none());
    let one = ok(uow.recorded(&key("one")).await);
    assert_eq!(one.map(|receipt| receipt.output), Some("1".to_owned()));
}

/// An output that JSON does not give back is refused, since its repetition could not be answered.
pub async fn an_output_comes_back_from_json<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let refused = bench
        .store
        .execute_once(&system(), &key("nan"), async |uow| {
            uow.save(Counter::new(1))?;
            Ok(f64::NAN)
        })
        .await;
    assert_usage(&err(refused));
    assert_eq!(bench.log().await.len(), 0);
}

/// A key is recorded with what is appended to a stream as with what is saved as a row: a command
/// that was refused leaves neither, one that was done is done once.
pub async fn a_key_counts_for_either_form<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: AccountForm>(h: &H) {
        let bench = begin(h).await;
        let number = || "A1".to_owned();
        let mut account = A::unopened("A1");
        account.open("ann");
        bench.save(&north(), account).await;
        let key = key("transfer");
        let transfer = async |cents: i64| {
            bench
                .store
                .execute_once(&north(), &key, async |uow| {
                    let mut account: A = uow.get(number()).await?;
                    account.transfer(cents);
                    uow.save(account.clone())?;
                    if cents < 0 {
                        return Err(Error::other("refused"));
                    }
                    Ok(account.contents().1)
                })
                .await
        };
        assert!(matches!(err(transfer(-1).await), Error::Other(_)));
        let first = ok(transfer(5).await);
        assert_eq!((*first.output(), first.events().len()), (5, 1));
        assert_eq!(ok(transfer(7).await), first);
        let account: A = bench.load(&north(), number()).await;
        assert_eq!((account.contents().1, account.root().version()), (5, 2));
        assert_eq!(bench.log().await.len(), 2);
    }
    rule::<H, Account>(h).await;
    rule::<H, Ledger>(h).await;
}
