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

/// The directory of the workspace's `Cargo.toml`.
fn workspace_root() -> PathBuf {
    // `cargo xtask` says at run time where the package is; a binary that is started by hand knows
    // only where it was built.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}
