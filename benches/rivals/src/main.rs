//! The work of the benchmarks, done with other crates.
//!
//! `cargo xtask bench rivals` builds and runs this program. It reads a command a line, as JSON,
//! and answers each with a line; `protocol` has both.

#[allow(
    dead_code,
    reason = "the benchmarks take the rounds apart; here is only measured"
)]
#[path = "../../src/harness.rs"]
mod harness;
#[path = "../../src/rivals/protocol.rs"]
mod protocol;
mod serve;
mod sides;

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use protocol::{Answer, Command};
use serve::{Orders, serve};
use sides::{CqrsEs, CqrsEsUpsert, Disintegrate, EsEntity, Esrs, Obix};

#[tokio::main]
async fn main() -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut output = tokio::io::stdout();
    let mut orders = HashMap::new();
    while let Some(line) = lines.next_line().await? {
        let answer = match obey(&line, &mut orders).await {
            Ok(answer) => answer,
            Err(error) => Answer::Failed {
                error: format!("{error:#}"),
            },
        };
        let mut answer = serde_json::to_string(&answer)?;
        answer.push('\n');
        output.write_all(answer.as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}

/// Does what a line says. `orders` has those of each side.
async fn obey(line: &str, orders: &mut HashMap<String, Orders>) -> Result<Answer> {
    let command: Command = serde_json::from_str(line).context("not a command")?;
    let orders = orders.entry(command.rival.clone()).or_default();
    let (url, work) = (command.url.as_str(), command.work);
    match command.rival.as_str() {
        "cqrs-es" => serve::<CqrsEs>(url, work, orders).await,
        "cqrs-es-upsert" => serve::<CqrsEsUpsert>(url, work, orders).await,
        "disintegrate" => serve::<Disintegrate>(url, work, orders).await,
        "es-entity" => serve::<EsEntity>(url, work, orders).await,
        "esrs" => serve::<Esrs>(url, work, orders).await,
        "obix" => serve::<Obix>(url, work, orders).await,
        other => bail!("there is no rival {other}"),
    }
}
