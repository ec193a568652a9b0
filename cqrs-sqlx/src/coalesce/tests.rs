//! What becomes of those who wait.

use std::sync::{Arc, LazyLock};

use cqrs_core::mapping::{Table, Value};
use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Error, RequestContext, StoreErrorKind, TableChanges};
use tokio::sync::oneshot::Receiver;

use super::commits::{Answer, Batch, Commit};
use super::lanes;
use super::lanes::Entered;
use crate::backend::{Process, Written};

type Lanes = lanes::Lanes<Box<Commit>>;
type Turn = lanes::Turn<Box<Commit>>;

static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::builder("a").version().key::<i64>("id").build());

fn commit(operation: Operation, id: &str) -> Box<Commit> {
    let write = StagedWrite {
        aggregate_type: "a",
        aggregate_id: id.to_owned(),
        table: &TABLE,
        operation,
        key: Value::Null,
        tenant: None,
        expected_version: 1,
        new_version: 2,
        row: Vec::new(),
        children: Vec::new(),
        events: Vec::new(),
        snapshot: None,
    };
    let metadata = RequestContext::system().metadata().clone();
    let changing = Arc::new(TableChanges::default()).changing();
    Box::new(Commit::new(write, metadata, changing))
}

fn enter(lanes: &Arc<Lanes>, id: &str) -> Entered<Box<Commit>> {
    lanes.enter(commit(Operation::Insert, id))
}

/// Lanes in which a first commit has been under way, and three wait for two flushes.
fn waiting(most: usize) -> (Arc<Lanes>, Vec<Turn>, Vec<Receiver<Answer>>) {
    let lanes = Arc::new(Lanes::new(most));
    let Entered::Empty(_, first) = enter(&lanes, "first") else {
        panic!("the lane was empty");
    };
    let (mut turns, mut answers) = (Vec::new(), Vec::new());
    for id in ["c", "a", "b"] {
        match enter(&lanes, id) {
            Entered::Empty(..) => panic!("the first is under way"),
            Entered::Behind(answer) => answers.push(answer),
            Entered::ToFlush(turn, answer) => {
                turns.push(turn);
                answers.push(answer);
            }
        }
    }
    drop(first);
    assert_eq!(turns.len(), 2);
    (lanes, turns, answers)
}

fn is_alone(answer: &mut Receiver<Answer>) -> bool {
    matches!(answer.try_recv(), Ok(Answer::Alone(_, None)))
}

#[test]
fn lanes_are_of_a_table_and_an_operation() {
    let lanes = Arc::new(Lanes::new(10));
    let first = lanes.enter(commit(Operation::Insert, "a"));
    assert!(matches!(first, Entered::Empty(..)));
    let other = lanes.enter(commit(Operation::Update, "a"));
    assert!(matches!(other, Entered::Empty(..)));
    drop(first);
    let next = lanes.enter(commit(Operation::Insert, "b"));
    assert!(matches!(next, Entered::Empty(..)), "the first has left");
}

#[test]
fn a_turn_lasts_until_nobody_waits() {
    let (lanes, mut turns, _answers) = waiting(2);
    let (turn, mut other) = (&mut turns.remove(0), turns.remove(0));
    assert!(turn.goes_on());
    assert_eq!(turn.take().len(), 2);
    assert!(turn.goes_on());
    assert_eq!(turn.take().len(), 1);
    assert!(matches!(enter(&lanes, "d"), Entered::Behind(_)));
    assert!(turn.goes_on());
    assert_eq!(turn.take().len(), 1);
    assert!(!turn.goes_on() && !other.goes_on());
    assert!(matches!(enter(&lanes, "e"), Entered::Empty(..)));
}

#[test]
fn who_waits_for_a_task_that_was_dropped_commits_alone() {
    let (lanes, turns, mut answers) = waiting(10);
    drop(turns);
    assert!(answers.iter_mut().all(is_alone));
    assert!(matches!(enter(&lanes, "d"), Entered::Empty(..)));
}

#[test]
fn a_batch_is_in_the_order_of_ids_without_those_who_gave_up() {
    let (_lanes, mut turns, mut answers) = waiting(10);
    drop(answers.remove(1));
    let batch = Batch::of(turns[0].take());
    let ids: Vec<&str> = batch
        .writes()
        .iter()
        .map(|(write, _)| write.aggregate_id.as_str())
        .collect();
    assert_eq!(ids, ["b", "c"]);
}

#[test]
fn a_batch_is_of_a_million_bytes_at_most() {
    let (lanes, mut turns, _answers) = waiting(100);
    let large = || {
        let mut large = commit(Operation::Insert, "large");
        large.write.row = vec![Value::Text("x".repeat(64 * 1024)), Value::Bytes(vec![0])];
        large
    };
    for _ in 0..20 {
        assert!(matches!(lanes.enter(large()), Entered::Behind(_)));
    }
    assert_eq!(turns[0].take().len(), 3 + 15);
    assert_eq!(turns[0].take().len(), 5);
}

#[test]
fn one_that_is_larger_than_a_batch_holds_up_nobody() {
    let (lanes, mut turns, _answers) = waiting(100);
    assert_eq!(turns[0].take().len(), 3);
    let mut larger = commit(Operation::Insert, "larger");
    larger.write.row = vec![Value::Bytes(vec![0; 2 * 1024 * 1024])];
    assert!(matches!(lanes.enter(larger), Entered::Behind(_)));
    assert!(matches!(enter(&lanes, "behind"), Entered::Behind(_)));
    assert_eq!(turns[0].take().len(), 1);
    assert_eq!(turns[0].take().len(), 1);
    assert!(!turns[0].goes_on());
}

#[test]
fn halves_go_out_in_order() {
    let (_lanes, mut turns, mut answers) = waiting(10);
    let batch = Batch::of(turns[0].take());
    let ids = batch.halves().map(|half| {
        let ids = half.writes().into_iter();
        ids.map(|(write, _)| write.aggregate_id.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(ids, [vec!["b", "c"], vec!["a"]]);
    assert!(answers.iter_mut().all(is_alone), "both were dropped");
}

#[test]
fn nobody_knows_what_became_of_any() {
    let (_lanes, mut turns, mut answers) = waiting(10);
    let cause = Error::store(StoreErrorKind::OutcomeUnknown, "away");
    Batch::of(turns[0].take()).end_unknown(cause);
    for answer in &mut answers {
        assert!(matches!(answer.try_recv(), Ok(Answer::Unknown(_))));
    }
}

#[test]
fn each_is_answered_with_what_it_has_written() {
    let (_lanes, mut turns, mut answers) = waiting(10);
    let batch = Batch::of(turns[0].take());
    let written = Written::default();
    batch.end(vec![None, Some(written.clone()), Some(written)]);
    // They came in the order c, a, b.
    assert!(matches!(answers[0].try_recv(), Ok(Answer::Done(_))));
    assert!(is_alone(&mut answers[1]));
    assert!(matches!(answers[2].try_recv(), Ok(Answer::Done(_))));
}

#[test]
fn a_batch_that_was_sent_and_dropped_is_lost() {
    let process = Process::Own {
        id: 7,
        started: "now".to_owned(),
    };
    for sent_to in [None, Some(process.clone())] {
        let (_lanes, mut turns, mut answers) = waiting(10);
        let mut batch = Batch::of(turns[0].take());
        batch.sent_to.clone_from(&sent_to);
        drop(batch);
        for answer in &mut answers {
            match answer.try_recv() {
                Ok(Answer::Alone(_, None)) => assert_eq!(sent_to, None),
                Ok(Answer::Lost(_, at)) => assert_eq!(sent_to.as_ref(), Some(&at)),
                answer => panic!("{answer:?}"),
            }
        }
    }
}
