//! Counting instructions with callgrind.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// How many instructions this program executes with these arguments, and what it prints.
///
/// # Errors
///
/// Where valgrind is missing, or the program fails under it.
pub fn run(arguments: &[&str]) -> Result<(u64, String)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .output()
        .context(
            "valgrind cannot be run; install it (Debian, Ubuntu: apt-get install valgrind), or \
             let `cargo xtask bench` do so",
        )?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind failed:\n{told}");
    let counted = told
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .with_context(|| format!("callgrind did not tell a count:\n{told}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((counted, printed))
}
