//! How this tool calls cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A call of the cargo that runs this tool, in the root of the workspace and without input.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root()).stdin(Stdio::null());
    command
}

/// A call that checks the rivals of the benchmarks against their lock file. Their settings are in a
/// directory beside them, which cargo finds from there.
pub(crate) fn check_rivals() -> Command {
    let mut command = command();
    command
        .current_dir(workspace_root().join("benches/rivals"))
        .args(["check", "--locked"])
        // What is checked at compile time is checked without a database.
        .env_remove("DATABASE_URL");
    command
}

/// The directory of the workspace's `Cargo.toml`.
fn workspace_root() -> PathBuf {
    // `cargo xtask` says at run time where the package is; a binary that is started by hand knows
    // only where it was built.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}
