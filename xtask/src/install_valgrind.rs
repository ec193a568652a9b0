//! Installing valgrind where there is none: `bench load` counts instructions with it.

use std::io;
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};
use crate::install_postgres::is_on_path;
use crate::service_user;

/// The advice at the end of every failure here.
const ADVICE: &str = "\
install valgrind by hand:
    Debian, Ubuntu   apt-get install valgrind
    Fedora, RHEL     dnf install valgrind
It does not run on macOS with Apple silicon; count on Linux";

const INSTALLERS: [(&str, &str); 2] = [
    (
        "apt-get",
        "apt-get update || :; DEBIAN_FRONTEND=noninteractive apt-get install -y \
         --no-install-recommends -o DPkg::Lock::Timeout=300 valgrind",
    ),
    ("dnf", "dnf install -y valgrind"),
];

/// Sees to it that `valgrind` is on the `PATH`.
///
/// # Errors
///
/// When it is not, and cannot be installed.
pub(crate) fn find_or_install() -> Result<()> {
    if is_on_path("valgrind") {
        return Ok(());
    }
    let Some((program, script)) = INSTALLERS.iter().find(|(program, _)| is_on_path(program)) else {
        return Err(missing("no package manager that we know is here"));
    };
    eprintln!("xtask: no valgrind found; installing it with {program}");
    let mut command = if service_user::is_root()? {
        Command::new("sh")
    } else {
        // `-n`: a prompt for a password would hang where nobody sits in front of it.
        let mut command = Command::new("sudo");
        command.args(["-n", "sh"]);
        command
    };
    let status = command
        .args(["-c", script])
        .stdin(Stdio::null())
        // Standard output is for what the user asked for.
        .stdout(io::stderr())
        .status()
        .map_err(|error| missing(&format!("{program} cannot be run: {error}")))?;
    if status.success() && is_on_path("valgrind") {
        return Ok(());
    }
    Err(missing(&format!("{program} did not install it ({status})")))
}

fn missing(why: &str) -> Failure {
    Failure::new(format!("there is no valgrind, and {why}; {ADVICE}"))
}
