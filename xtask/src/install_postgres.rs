//! Installing Postgres where there is none.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};
use crate::find_postgres;
use crate::service_user;

/// Whether a missing Postgres may be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Install {
    /// With the package manager of the system.
    #[default]
    IfMissing,
    /// Not at all; its absence is a failure.
    Never,
}

/// How one package manager installs a server.
struct PackageManager {
    program: &'static str,
    needs_root: bool,
    /// A script for `sh`.
    script: &'static str,
}

const PACKAGE_MANAGERS: [PackageManager; 3] = [
    PackageManager {
        program: "apt-get",
        needs_root: true,
        script: APT,
    },
    PackageManager {
        program: "dnf",
        needs_root: true,
        script: "dnf install -y postgresql-server postgresql-contrib",
    },
    PackageManager {
        program: "brew",
        needs_root: false,
        script: "brew install postgresql@17",
    },
];

/// Debian's package sets up and starts a cluster on port 5432 unless it is told not to. The file
/// that tells it is there for the length of the installation only, because it is not ours to decide
/// what a later one does. A package list that cannot be refreshed is often still good enough.
const APT: &str = r#"
set -eu
export DEBIAN_FRONTEND=noninteractive
directory=/etc/postgresql-common/createcluster.d
trap 'rm -f "$directory/xtask.conf"; rmdir "$directory" 2>/dev/null || :' EXIT
mkdir -p "$directory"
echo 'create_main_cluster = false' >"$directory/xtask.conf"
apt-get update || echo 'xtask: the package lists are not up to date; going on' >&2
apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 postgresql
"#;

/// The advice at the end of every failure here.
const ADVICE: &str = "\
install the PostgreSQL server by hand:
    Debian, Ubuntu   apt-get install postgresql
    Fedora, RHEL     dnf install postgresql-server postgresql-contrib
    macOS            brew install postgresql@17
or set PG_BIN_DIR to the directory that holds its `initdb`, `pg_ctl` and `postgres`";

/// The directory of the server's programs, after an installation if need be and allowed.
///
/// # Errors
///
/// When there is no server and it cannot or must not be installed.
pub(crate) fn find_or_install(install: Install) -> Result<PathBuf> {
    if let Some(bin) = find_postgres::find()? {
        return Ok(bin);
    }
    if install == Install::Never {
        return Err(missing("installing it was ruled out"));
    }
    let Some(manager) = PACKAGE_MANAGERS
        .iter()
        .find(|manager| is_on_path(manager.program))
    else {
        return Err(missing("no package manager that we know is here"));
    };
    eprintln!(
        "xtask: no PostgreSQL server found; installing it with {}",
        manager.program
    );
    let status = manager
        .command()?
        .stdin(Stdio::null())
        // Standard output is for what the user asked for.
        .stdout(io::stderr())
        .status()
        .map_err(|error| missing(&format!("{} cannot be run: {error}", manager.program)))?;
    if !status.success() {
        return Err(missing(&format!("{} failed ({status})", manager.program)));
    }
    find_postgres::find()?.ok_or_else(|| {
        missing(&format!(
            "{} succeeded, yet its programs are in none of the usual places",
            manager.program
        ))
    })
}

impl PackageManager {
    /// The installation, as root if it has to be.
    fn command(&self) -> Result<Command> {
        if !self.needs_root || service_user::is_root()? {
            let mut command = Command::new("sh");
            command.args(["-c", self.script]);
            return Ok(command);
        }
        // `-n`: a prompt for a password would hang where nobody sits in front of it.
        let may_sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !may_sudo {
            return Err(missing(&format!(
                "installing it with {} takes root, and `sudo` is missing or asks for a password",
                self.program
            )));
        }
        let mut command = Command::new("sudo");
        command.args(["-n", "sh", "-c", self.script]);
        Ok(command)
    }
}

fn missing(why: &str) -> Failure {
    Failure::new(format!(
        "there is no PostgreSQL server, and {why}; {ADVICE}"
    ))
}

pub(crate) fn is_on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|entry| entry.join(program).is_file()))
}
