//! The part `compile`: how long an application takes to compile, by its number of aggregates.
//!
//! An application is generated into `target/bench/compile`, with an aggregate, its events, two
//! finders, a read model and two commands in each module, and a program that uses all of them. What
//! it depends on is compiled before anything is measured. `clean` compiles and links the
//! application alone, `changed` does so after a change in one module; both without optimisation.
//! The lines that the derives generate are those of `rustc -Zunpretty=expanded`, without those of
//! the source; they include what the derives of serde and of the standard library generate.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::harness::{Sample, take_turns};
use crate::report::{Amounts, Bound, By, Case, OURS, Results, directory};

/// An aggregate with all that belongs to it; `NUMBER` stands for its number.
const MODULE: &str = include_str!("compile/module.txt");
/// Lets the compiler print what it has expanded, without an effect on what is compiled already.
const WRAPPER: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"$@\"\n";

/// How many lines may be generated for an aggregate with its events, finders and read model.
const MOST_LINES: f64 = 900.0;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The numbers of aggregates.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50])]
    aggregates: Vec<usize>,
    /// How many times each is compiled.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

/// Runs the part.
///
/// # Errors
///
/// Where the application does not compile.
pub(crate) async fn run(_url: &str, options: &Options, results: &mut Results) -> Result<()> {
    let mut apps = Vec::new();
    for &aggregates in &options.aggregates {
        let app = App::generate(&directory()?.join("compile"), aggregates)?;
        app.build()?;
        apps.push(app);
    }
    let indices: Vec<usize> = (0..apps.len()).collect();
    let clean = async |index: usize| {
        let app: &App = &apps[index];
        app.cargo(&["clean", "--package", &app.name])?;
        Ok(Sample::once(app.aggregates, app.build()?))
    };
    let clean = take_turns(&indices, options.rounds, clean).await?;
    let mut changes = 0;
    let changed = async |index: usize| {
        changes += 1;
        let app: &App = &apps[index];
        app.change(changes)?;
        Ok(Sample::once(app.aggregates, app.build()?))
    };
    let changed = take_turns(&indices, options.rounds, changed).await?;
    let sides: Vec<String> = apps.iter().map(|app| app.aggregates.to_string()).collect();
    let most = sides.last().context("a number of aggregates")?;
    for (name, samples) in [("clean", clean), ("changed", changed)] {
        let case = Case::new("compile", format!("{name}, by aggregates"), &sides, samples);
        results.add(&case.comparing(most).by(By::P50))?;
    }
    let (Some(small), Some(large)) = (apps.first(), apps.last()) else {
        return Ok(());
    };
    if small.aggregates < large.aggregates {
        let more = large.aggregates - small.aggregates;
        let count = (large.generated()? - small.generated()?) / more;
        let generated = Amounts {
            part: "compile",
            case: "generated for an aggregate".to_owned(),
            unit: "lines",
            sides: vec![
                (OURS, lines(count)?),
                ("source", lines(MODULE.lines().count())?),
            ],
        };
        results.add_amounts(&generated)?;
        results.expect(generated.goal_of_side(OURS, Bound::AtMost(MOST_LINES)));
    }
    Ok(())
}

fn lines(count: usize) -> Result<f64> {
    Ok(f64::from(u32::try_from(count)?))
}

/// A generated application.
struct App {
    directory: PathBuf,
    target: PathBuf,
    name: String,
    aggregates: usize,
}

impl App {
    /// Writes it.
    fn generate(root: &Path, aggregates: usize) -> Result<Self> {
        let name = format!("app-of-{aggregates}");
        let directory = root.join(&name);
        let source = directory.join("src");
        fs::create_dir_all(&source)?;
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let workspace = workspace.canonicalize()?;
        fs::write(directory.join("Cargo.toml"), manifest(&name, &workspace))?;
        fs::copy(workspace.join("Cargo.lock"), directory.join("Cargo.lock"))?;
        fs::write(source.join("main.rs"), program(aggregates))?;
        for number in 0..aggregates {
            fs::write(source.join(format!("m{number}.rs")), module(number, 0))?;
        }
        Ok(Self {
            directory,
            target: root.join("target"),
            name,
            aggregates,
        })
    }

    /// Changes what one method of an aggregate does.
    fn change(&self, change: u32) -> Result<()> {
        Ok(fs::write(
            self.directory.join("src/m0.rs"),
            module(0, change),
        )?)
    }

    /// Compiles it; how long that took.
    fn build(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.cargo(&["build", "--quiet"])?;
        Ok(begun.elapsed())
    }

    /// How many lines the compiler sees that are not in the source.
    fn generated(&self) -> Result<usize> {
        let wrapper = self.directory.join("expand.sh");
        fs::write(&wrapper, WRAPPER)?;
        make_executable(&wrapper)?;
        let mut command = self.command(&["rustc", "--quiet", "--", "-Zunpretty=expanded"]);
        command.env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
        let expanded = output(command)?.lines().count();
        let own =
            MODULE.lines().count() * self.aggregates + program(self.aggregates).lines().count();
        Ok(expanded.saturating_sub(own))
    }

    fn cargo(&self, arguments: &[&str]) -> Result<String> {
        output(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(not(unix))]
fn make_executable(_file: &Path) -> Result<()> {
    anyhow::bail!("generated lines are counted on Unix alone")
}

fn output(mut command: Command) -> Result<String> {
    let output = command.output().context("running cargo")?;
    ensure!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn manifest(name: &str, workspace: &Path) -> String {
    let workspace = workspace.display();
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n\
         anyhow = \"1\"\n\
         cqrs-core = {{ path = \"{workspace}/cqrs-core\" }}\n\
         cqrs-sqlx = {{ path = \"{workspace}/cqrs-sqlx\", features = [\"postgres\"] }}\n\
         serde = {{ version = \"1\", features = [\"derive\"] }}\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n\n\
         [profile.dev]\ndebug = \"line-tables-only\"\n"
    )
}

fn module(number: usize, change: u32) -> String {
    MODULE
        .replace("NUMBER", &number.to_string())
        .replace("CHANGE", &change.to_string())
}

fn program(aggregates: usize) -> String {
    let (mut modules, mut calls) = (String::new(), String::new());
    for number in 0..aggregates {
        // Writing to a string does not fail.
        let _ = writeln!(modules, "mod m{number};");
        let _ = writeln!(calls, "    m{number}::run(&store, &context).await?;");
    }
    format!(
        "{modules}\n#[tokio::main]\nasync fn main() -> anyhow::Result<()> {{\n    \
         let url = std::env::var(\"DATABASE_URL\")?;\n    \
         let store = cqrs_sqlx::PgStore::connect(&url).await?;\n    \
         let context = cqrs_core::RequestContext::tenant(cqrs_core::TenantId::new(\"north\")?);\n\
         {calls}    Ok(())\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_calls_each_of_its_modules() {
        let program = program(3);
        for number in 0..3 {
            assert!(program.contains(&format!("mod m{number};")));
            assert!(program.contains(&format!("m{number}::run(")));
        }
        assert!(!program.contains("m3"));
    }

    #[test]
    fn a_change_changes_one_line() {
        let (before, after) = (module(7, 0), module(7, 1));
        let changed = before.lines().zip(after.lines());
        assert_eq!(changed.filter(|(before, after)| before != after).count(), 1);
        assert!(before.contains("item_7") && !before.contains("NUMBER"));
    }
}
