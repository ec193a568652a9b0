//! The import: each step of each order is a command at its recorded time, in the order of time.
//!
//! The clock of the store shows the time of the file. It goes on from day to day, and each day
//! begins with what the day before has left behind: events that are not projected yet, and
//! deadlines that have passed.

use anyhow::Context;
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use cqrs_core::{ManualClock, RequestContext, Result, Store, UnitOfWork};
use cqrs_sqlx::{Backend, ProjectorBuilder, SqlStore};

use crate::file::Record;
use crate::order::{Order, Step, StepKind};

/// A step of an order.
#[derive(Debug, Clone)]
struct Command {
    order: String,
    step: Step,
}

/// Imports orders; how many commands that were.
pub(crate) async fn run<B: Backend>(
    store: &SqlStore<B>,
    clock: &ManualClock,
    projector: &ProjectorBuilder<B>,
    context: &RequestContext,
    records: &[Record],
) -> anyhow::Result<usize> {
    let mut commands = commands(records);
    let (Some(first), Some(last)) = (commands.first(), records.iter().map(ends_at).max()) else {
        return Ok(0);
    };
    let count = commands.len();
    let mut day = midnight(first.step.known_at);
    // Taken from the end.
    commands.reverse();
    while day <= last {
        clock.set(day);
        projector.run_until_idle().await?;
        let next = day + TimeDelta::days(1);
        let mut of_day = Vec::new();
        while commands
            .last()
            .is_some_and(|command| command.step.known_at < next)
        {
            of_day.extend(commands.pop());
        }
        store
            .execute_in_batches(context, 500, of_day, async |uow, command| {
                clock.set(command.step.known_at);
                handle(uow, command).await
            })
            .await
            .with_context(|| format!("importing {}", day.date_naive()))?;
        day = next;
    }
    clock.set(day);
    projector.run_until_idle().await?;
    Ok(count)
}

/// The steps of all orders, in the order of time. Those of one order keep their own.
fn commands(records: &[Record]) -> Vec<Command> {
    let mut commands: Vec<Command> = records
        .iter()
        .flat_map(|record| {
            let steps = record.steps().into_iter();
            steps.map(|step| Command {
                order: record.order.clone(),
                step,
            })
        })
        .collect();
    commands.sort_by_key(|command| command.step.known_at);
    commands
}

/// By when everything has happened to an order that will.
fn ends_at(record: &Record) -> DateTime<Utc> {
    let steps = record.steps();
    let last = steps.last().map_or(record.promised, |step| step.known_at);
    last.max(record.promised) + TimeDelta::days(1)
}

fn midnight(time: DateTime<Utc>) -> DateTime<Utc> {
    time.date_naive().and_time(NaiveTime::MIN).and_utc()
}

async fn handle<U: UnitOfWork>(uow: &mut U, command: Command) -> Result<()> {
    let Command { order, step } = command;
    match step.kind {
        StepKind::Place { .. } => uow.decide_new::<Order, _>(order, step),
        _ => uow.decide::<Order, _>(order, step).await,
    }
}
