//! A case: some aggregates, and work on them.

use std::collections::BTreeSet;

use cqrs_core::{CommitReceipt, Store, UnitOfWork};
use cqrs_integration::random::Random;
use cqrs_sqlx::PgUnitOfWork;
use tokio::task::{JoinHandle, JoinSet};

use super::model::{Command, Key, Kind, Model, Orders, Outcome, Step};
use super::world::{Loaded, World, context, id, outcome};

pub(super) struct Case {
    number: u64,
    before: Model,
    commands: Vec<(Command, Loaded)>,
}

/// A case whose callers may have given up.
pub(super) struct Started {
    number: u64,
    before: Model,
    commands: Vec<(Command, Option<Outcome>)>,
}

const AGGREGATES: u64 = 4;

impl Case {
    /// Makes its aggregates, and chooses its work.
    pub(super) async fn random(world: &World, number: u64, random: &mut Random) -> Self {
        let mut copies: Vec<(Key, Loaded)> = Vec::new();
        for aggregate in 0..AGGREGATES {
            for kind in [Kind::Carton, Kind::Pallet] {
                let key = (kind, aggregate);
                let fate = random.below(8);
                if fate == 0 {
                    continue;
                }
                let made = Loaded::new(kind, id(number, aggregate));
                let label = label(number, aggregate);
                commit(world, key, &made, &command(key, Step::Create, &made, label)).await;
                copies.push((key, load(world, number, key).await));
                if fate < 4 {
                    let (_, stale) = copies.last().cloned().expect("it was just loaded");
                    let step = if fate == 1 {
                        Step::Remove
                    } else {
                        Step::Change
                    };
                    let label = stale.data().0;
                    commit(world, key, &stale, &command(key, step, &stale, label)).await;
                    if step == Step::Change {
                        copies.push((key, load(world, number, key).await));
                    }
                }
            }
        }
        let commands = 3 + random.below(8);
        let commands = (0..commands).map(|_| choose(number, &copies, random));
        let commands = commands.collect();
        Self {
            number,
            before: world.model(number).await,
            commands,
        }
    }

    fn staged(&self, world: &World, random: &mut Random) -> Vec<PgUnitOfWork> {
        let commands = self.commands.iter();
        let staged = commands.map(|(command, loaded)| {
            let store = &world.committing[random.below(5) as usize / 4];
            let mut uow = store.unit_of_work(&context(command.tenant));
            loaded.stage(command, &mut uow).unwrap();
            uow
        });
        staged.collect()
    }

    /// Commits all work at the same moment, and finds an order for it; the kinds of outcomes.
    pub(super) async fn run(self, world: &World, random: &mut Random) -> BTreeSet<&'static str> {
        let logged = world.events(self.number).await;
        let mut commits = JoinSet::new();
        for (at, uow) in self.staged(world, random).into_iter().enumerate() {
            commits.spawn(async move { (at, uow.commit().await) });
        }
        let mut ended = commits.join_all().await;
        ended.sort_by_key(|(at, _)| *at);

        let mut receipts: Vec<(Key, CommitReceipt)> = Vec::new();
        let mut commands = Vec::new();
        for ((command, _), (_, result)) in self.commands.into_iter().zip(ended) {
            let own = id(self.number, command.key.1);
            let got = match result {
                Ok(receipt) => {
                    let events = receipt.events().len() as u64;
                    receipts.push((command.key, receipt));
                    Outcome::Done(events)
                }
                Err(error) => outcome(error, &own),
            };
            commands.push((command, Some(got)));
        }
        let after = world.model(self.number).await;
        assert!(
            Orders::lead(&self.before, &commands, &after),
            "case {}: no order of these commits explains\n{commands:#?}\nfrom {:#?}\nto {after:#?}",
            self.number,
            self.before
        );
        let mut written = logged;
        for (key, receipt) in &receipts {
            assert_eq!(receipt.position().is_some(), !receipt.events().is_empty());
            for event in receipt.events() {
                assert_eq!(
                    written.insert(*event, *key),
                    None,
                    "an event of two receipts"
                );
            }
        }
        assert_eq!(world.events(self.number).await, written, "log and receipts");
        let outcomes = commands.iter().filter_map(|(_, outcome)| outcome.as_ref());
        outcomes.map(name).collect()
    }

    /// Commits all work at the same moment, and gives up one in so many of the callers.
    pub(super) async fn start(self, world: &World, random: &mut Random, one_in: u64) -> Started {
        let staged = self.staged(world, random);
        let mut callers: Vec<JoinHandle<_>> = Vec::new();
        for uow in staged {
            callers.push(tokio::spawn(uow.commit()));
        }
        for caller in &callers {
            for _ in 0..random.below(4) {
                tokio::task::yield_now().await;
            }
            if random.below(one_in) == 0 {
                caller.abort();
            }
        }
        let mut commands = Vec::new();
        for ((command, _), caller) in self.commands.into_iter().zip(callers) {
            let own = id(self.number, command.key.1);
            let got = match caller.await {
                Ok(Ok(receipt)) => Some(Outcome::Done(receipt.events().len() as u64)),
                Ok(Err(error)) => Some(outcome(error, &own)),
                Err(error) if error.is_cancelled() => None,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            commands.push((command, got));
        }
        Started {
            number: self.number,
            before: self.before,
            commands,
        }
    }
}

impl Started {
    /// Finds an order, when nothing is under way any more.
    pub(super) async fn check(self, world: &World) {
        let after = world.model(self.number).await;
        assert!(
            Orders::lead(&self.before, &self.commands, &after),
            "case {}: no order of these commits explains\n{:#?}\nfrom {:#?}\nto {after:#?}",
            self.number,
            self.commands,
            self.before
        );
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(0) => "nothing to do",
        Outcome::Done(_) => "done",
        Outcome::Conflict { .. } => "conflict",
        Outcome::NotFound => "not found",
        Outcome::AlreadyExists => "already exists",
        Outcome::Constraint(_) => "constraint",
    }
}

fn label(case: u64, number: u64) -> String {
    format!("label {case}-{number}")
}

fn command(key: Key, step: Step, loaded: &Loaded, label: String) -> Command {
    Command {
        key,
        step,
        expected: loaded.version(),
        label,
        grams: loaded.data().1 + 1,
        events: 1,
        tenant: key.1,
    }
}

/// Random work on one of these, or on one that is new or taken.
fn choose(case: u64, copies: &[(Key, Loaded)], random: &mut Random) -> (Command, Loaded) {
    let at = random.below(copies.len() as u64 + 3) as usize;
    let any = random.below(2 * AGGREGATES);
    let Some((key, loaded)) = copies.get(at).cloned() else {
        let kind = [Kind::Carton, Kind::Pallet][random.below(2) as usize];
        let key = (kind, any);
        let loaded = Loaded::new(kind, id(case, any));
        // Its label may be another's.
        let label = label(case, any + random.below(5) / 4);
        let mut create = command(key, Step::Create, &loaded, label);
        create.grams = i64::from(random.below(8) > 0) * 3 - 1;
        create.events = 1 + random.below(3);
        create.tenant = random.below(6);
        return (create, loaded);
    };
    let step = [
        Step::Change,
        Step::Change,
        Step::Relabel,
        Step::Touch,
        Step::Remove,
    ][random.below(5) as usize];
    let own = loaded.data().0;
    let mut chosen = command(key, step, &loaded, own);
    match step {
        Step::Touch => chosen.grams = loaded.data().1,
        Step::Change => chosen.events = 1 + random.below(3),
        _ => {}
    }
    if matches!(step, Step::Change | Step::Relabel) {
        match random.below(8) {
            0 => chosen.grams = -1,
            // Upwards: two that take each other's are a deadlock, of which the server ends one.
            1 if any > key.1 => chosen.label = label(case, any),
            _ => {}
        }
    }
    (chosen, loaded)
}

/// Commits alone, while nobody else does.
async fn commit(world: &World, key: Key, loaded: &Loaded, command: &Command) {
    let mut uow = world.plain.unit_of_work(&context(key.1));
    loaded.stage(command, &mut uow).unwrap();
    let _ = uow.commit().await.unwrap();
}

async fn load(world: &World, case: u64, key: Key) -> Loaded {
    let mut uow = world.plain.unit_of_work(&context(key.1));
    Loaded::load(key.0, id(case, key.1), &mut uow).await
}
