//! The part `query`: questions, against the same statements by hand on sqlx, whose rows are decoded
//! by index. Each side has one connection.
//!
//! - `finder`: 50 aggregates in the order of an index;
//! - `read-model`: 50 rows of a read model;
//! - `page`: 50 aggregates behind a cursor, with five children each. By hand these are two
//!   statements, the aggregates and their children; the framework sends one, so that nobody commits
//!   in between;
//! - `count`: how many of 10,000 are below a bound.

mod by_hand;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use cqrs_core::{
    Cursor, Entity as _, Maintain as _, PageRequest, Query, ReadModel, ReadModels as _,
    Repository as _, RequestContext, Store as _, TenantId, UnitOfWork as _,
};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor as _};

use crate::database::{ACTOR, Scratch, TENANT};
use crate::domain::{Basket, Order, OrderId, Orders as _, Place};
use crate::harness::{Timing, Worker, run_slice, take_turns};
use crate::report::{Case, OURS, Results};

/// How many rows a question is about.
const ROWS: u32 = 50;
/// How many orders there are.
const ORDERS: i64 = 10_000;
/// How many baskets there are, and how many lines each has.
const BASKETS: i64 = 1_000;
const LINES: i64 = 5;
/// Where the page begins.
const BEHIND: i64 = 500;
/// The bound of what is counted.
const BELOW: i64 = 1_000;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// How many slices each side gets.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// What is asked.
    #[arg(long, value_delimiter = ',', default_values = ["finder", "read-model", "page", "count"])]
    cases: Vec<Question>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Question {
    Finder,
    ReadModel,
    Page,
    Count,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Finder => "finder",
            Self::ReadModel => "read-model",
            Self::Page => "page",
            Self::Count => "count",
        }
    }
}

/// What a reader sees of an order.
#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "bench_summary", tenant)]
struct Summary {
    #[read_model(key)]
    id: OrderId,
    customer: String,
    quantity: i64,
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or the sides do not agree.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<()> {
    Scratch::within(url, async |scratch| {
        measure(&scratch.options(), options, results).await
    })
    .await
}

async fn measure(
    database: &PgConnectOptions,
    options: &Options,
    results: &mut Results,
) -> Result<()> {
    let store =
        PgStore::connect_with(database.clone(), StoreOptions::default().max_connections(1)).await?;
    let context = RequestContext::tenant(TenantId::new(TENANT)?).with_actor(ACTOR);
    fill(&store, &context, database).await?;
    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    for &question in &options.cases {
        let mut ours = Side::Ours(store.clone(), context.clone(), None);
        if question == Question::Page {
            ours.turn_to_page().await?;
        }
        let hand = Side::Hand(PgConnection::connect_with(database).await?);
        let mut askers = Vec::new();
        let mut answers = Vec::new();
        for mut side in [ours, hand] {
            let answer = side.ask(question).await?;
            answers.push(answer);
            askers.push(Some(Asker {
                side,
                question,
                answer,
            }));
        }
        ensure!(
            answers[0] == answers[1] && answers[0] > 0,
            "the sides answer {answers:?} to {}",
            question.name()
        );
        let samples = take_turns(&[0, 1], options.rounds, async |index: usize| {
            run_slice(&mut askers[index], timing).await
        })
        .await?;
        results.add(&Case::new(
            "query",
            question.name(),
            [OURS, "hand"],
            samples,
        ))?;
    }
    store.close();
    Ok(())
}

async fn fill(
    store: &PgStore,
    context: &RequestContext,
    database: &PgConnectOptions,
) -> Result<()> {
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), Basket::table(), Summary::table()])
        .await?;
    let orders = (1..=ORDERS).map(|quantity| {
        Order::place(&Place {
            customer: format!("customer {quantity}"),
            note: "Leave it with the neighbours, please.".to_owned(),
            quantity,
        })
    });
    let orders: Vec<Order> = orders.collect();
    store.maintenance::<Order>(context).insert(orders).await?;
    let baskets: Vec<Basket> = (1..=BASKETS)
        .map(|number| Basket::fill(number, LINES))
        .collect();
    store.maintenance::<Basket>(context).insert(baskets).await?;
    let mut connection = PgConnection::connect_with(database).await?;
    connection
        .execute(
            "INSERT INTO bench_summary (tenant_id, id, customer, quantity) \
             SELECT tenant_id, id, customer, quantity FROM bench_order; \
             CREATE INDEX ON bench_order (tenant_id, quantity, id) WHERE deleted_at IS NULL; \
             CREATE INDEX ON bench_summary (tenant_id, quantity, id); \
             CREATE INDEX ON bench_basket (tenant_id, number, id)",
        )
        .await?;
    connection
        .execute("VACUUM (ANALYZE) bench_order, bench_summary, bench_basket, bench_line")
        .await?;
    Ok(())
}

/// Who answers.
enum Side {
    /// The framework, and where the page begins.
    Ours(PgStore, RequestContext, Option<Cursor>),
    /// By hand.
    Hand(PgConnection),
}

impl Side {
    /// Finds the cursor behind the first baskets.
    async fn turn_to_page(&mut self) -> Result<()> {
        let Self::Ours(store, context, cursor) = self else {
            return Ok(());
        };
        let mut uow = store.unit_of_work(context);
        let query = Query::all().order_by(Basket::fields().number.asc());
        let first = PageRequest::first(u32::try_from(BEHIND)?);
        let page = uow.repository::<Basket>().page(query, first).await?;
        *cursor = Some(page.next.context("there are more baskets")?);
        Ok(())
    }

    /// Asks once; a sum over the answer.
    async fn ask(&mut self, question: Question) -> Result<i64> {
        let (store, context, cursor) = match self {
            Self::Hand(connection) => return by_hand::ask(connection, question).await,
            Self::Ours(store, context, cursor) => (store, context, cursor),
        };
        let mut uow = store.unit_of_work(context);
        Ok(match question {
            Question::Finder => {
                let orders = uow.repository::<Order>().find_placed(ROWS).await?;
                orders.iter().map(Order::quantity).sum()
            }
            Question::ReadModel => {
                let query = Query::all().order_by(Summary::fields().quantity.asc());
                let rows: Vec<Summary> = store
                    .read_models(context)
                    .query(query.limit(ROWS.into()))
                    .await?;
                rows.iter().map(|row| row.quantity).sum()
            }
            Question::Page => {
                let query = Query::all().order_by(Basket::fields().number.asc());
                let cursor = cursor.clone().context("the page has a beginning")?;
                let request = PageRequest::after(cursor, ROWS);
                let page = uow.repository::<Basket>().page(query, request).await?;
                ensure!(page.next.is_some(), "there are more baskets");
                page.items.iter().map(Basket::pieces).sum()
            }
            Question::Count => {
                let count = uow.repository::<Order>().count_below(BELOW).await?;
                i64::try_from(count)?
            }
        })
    }
}

/// Asks one question again and again.
struct Asker {
    side: Side,
    question: Question,
    answer: i64,
}

impl Worker for Asker {
    async fn work(&mut self) -> Result<()> {
        let answer = self.side.ask(self.question).await?;
        ensure!(answer == self.answer, "another answer: {answer}");
        Ok(())
    }
}
