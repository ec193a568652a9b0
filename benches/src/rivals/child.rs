//! The program of the rivals, in a process of its own: it has another sqlx.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::protocol::{self, Answer, Done, Holds, Measured, Work};
use crate::harness::Sample;

/// Where its sources are.
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rivals");

/// The running program.
///
/// It is talked to without the runtime: nobody else has anything to do while it works.
pub(super) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Builds and starts it.
    ///
    /// # Errors
    ///
    /// Where it does not build, or does not start.
    pub(super) fn start() -> Result<Self> {
        let program = build()?;
        let mut child = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// Has it create the schema of a side, or replace its orders.
    pub(super) fn prepare(&mut self, rival: &str, url: &str, work: Work) -> Result<()> {
        match self.ask(rival, url, work)? {
            Answer::Done => Ok(()),
            other => bail!("{rival} answers {other:?}"),
        }
    }

    /// Has it do work that is measured.
    pub(super) fn measure(&mut self, rival: &str, url: &str, work: Work) -> Result<(Sample, Done)> {
        let Answer::Measured(Measured {
            per_s,
            latencies_ns,
            done,
        }) = self.ask(rival, url, work)?
        else {
            bail!("{rival} did not measure {work:?}");
        };
        let sample = Sample {
            per_s,
            latencies: latencies_ns.into_iter().map(Duration::from_nanos).collect(),
        };
        Ok((sample, done))
    }

    /// What the tables of a side hold.
    pub(super) fn holds(&mut self, rival: &str, url: &str) -> Result<Holds> {
        match self.ask(rival, url, Work::Check)? {
            Answer::Holds(holds) => Ok(holds),
            other => bail!("{rival} answers {other:?}"),
        }
    }

    fn ask(&mut self, rival: &str, url: &str, work: Work) -> Result<Answer> {
        let mut line = serde_json::to_string(&protocol::Command {
            rival: rival.to_owned(),
            url: url.to_owned(),
            work,
        })?;
        line.push('\n');
        let input = self.input.as_mut().context("no input")?;
        input.write_all(line.as_bytes())?;
        input.flush()?;
        line.clear();
        let read = self.output.read_line(&mut line)?;
        ensure!(
            read > 0,
            "the program of the rivals ended while {rival} did {work:?}"
        );
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Answer::Failed { error } => bail!("{rival}, {work:?}: {error}"),
            answer => Ok(answer),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It ends with its input.
        self.input = None;
        if let Err(error) = self.child.wait() {
            eprintln!("the program of the rivals: {error}");
        }
    }
}

/// Builds the program, in a target directory of its own, and returns where it is.
fn build() -> Result<PathBuf> {
    let target = std::env::current_exe()?
        .ancestors()
        .nth(2)
        .context("the benchmarks are not in a target directory")?
        .join("rivals");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    println!("building the rivals into {}", target.display());
    let mut command = Command::new(cargo);
    // What cargo says of the package that it runs would have others be compiled anew, whose build
    // scripts look at it.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_the_package) {
            command.env_remove(name);
        }
    }
    let status = command
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        // Its settings are in a file beside it, which cargo finds from there.
        .current_dir(Path::new(PACKAGE))
        // What is checked at compile time is checked without a database.
        .env_remove("DATABASE_URL")
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the rivals do not build: {status}");
    Ok(target.join("release/cqrs-rivals"))
}

fn is_of_the_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}
