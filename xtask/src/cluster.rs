//! A private Postgres that lives as long as one command of this tool.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::failure::{Failure, Result};
use crate::find_postgres::{self, BIN_DIR_VARIABLE};
use crate::install_postgres::{self, Install};
use crate::service_user::{self, ServiceUser};

/// The variable by which a program learns the address of its database.
pub(crate) const DATABASE_URL: &str = "DATABASE_URL";

/// Starts the server, waits for the end of its input, stops the server and removes its directory.
const SUPERVISOR: &str = include_str!("supervise.sh");

/// How often to try another port when one was taken between its choice and its use.
const PORT_ATTEMPTS: u32 = 5;

/// What a crash of the machine may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Durability {
    /// Everything: nothing waits for the disk. For tests.
    #[default]
    None,
    /// Nothing, as in production. For measurements.
    Full,
}

/// A running server with an empty database, that nobody else uses.
///
/// There is one way to stop it for all cases, the normal end, a panic, Ctrl-C and `kill -9` alike:
/// a supervising `sh` in a process group of its own, which the server belongs to and whose standard
/// input is a pipe that only this process can write to. Dropping the cluster closes the pipe and
/// waits; the death of this process closes it too. The supervisor runs as the server's user, and
/// owns the temporary directory, from before `initdb` on.
#[derive(Debug)]
pub(crate) struct Cluster {
    bin: PathBuf,
    port: u16,
    supervisor: Child,
    problems: BufReader<ChildStdout>,
}

impl Cluster {
    /// Makes a cluster and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// When there is no Postgres to be had, or when it does not start; the message then holds the
    /// server's log.
    pub(crate) fn start(durability: Durability, install: Install) -> Result<Self> {
        let bin = install_postgres::find_or_install(install)?;
        let user = service_user::for_postgres()?;
        let mut attempt = 1;
        let cluster = loop {
            let port = free_port()?;
            match Self::start_on(port, durability, &bin, user.as_ref()) {
                Err(failure) if attempt < PORT_ATTEMPTS && is_port_taken(&failure) => attempt += 1,
                result => break result?,
            }
        };
        let of_user = user.map_or(String::new(), |user| format!(", user {}", user.name));
        eprintln!(
            "xtask: started PostgreSQL from {}, port {}{of_user}",
            cluster.bin.display(),
            cluster.port
        );
        Ok(cluster)
    }

    fn start_on(
        port: u16,
        durability: Durability,
        bin: &Path,
        user: Option<&ServiceUser>,
    ) -> Result<Self> {
        let settings = settings(port, durability, find_postgres::has_pg_stat_statements(bin));
        let mut command = Command::new("sh");
        without_client_variables(&mut command)
            .args(["-c", SUPERVISOR, "supervise"])
            .arg(bin)
            .arg(settings)
            .arg(match durability {
                Durability::None => "memory",
                Durability::Full => "disk",
            })
            // English messages, and a locale that macOS needs to have set.
            .env("LC_ALL", "C")
            // One that the server's user may enter.
            .current_dir("/")
            // Ctrl-C is for us alone: the supervisor learns of it by the end of its input.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(user) = user {
            // This also drops all supplementary groups.
            command.uid(user.uid).gid(user.gid);
        }
        let mut supervisor = command
            .spawn()
            .map_err(|error| Failure::of("cannot run `sh`", error))?;
        let stdout = supervisor
            .stdout
            .take()
            .ok_or_else(|| Failure::new("the supervisor of PostgreSQL has no output"))?;
        let mut cluster = Self {
            bin: bin.to_path_buf(),
            port,
            supervisor,
            problems: BufReader::new(stdout),
        };
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// Reads what the supervisor prints until it is ready or gives up; it keeps its own deadline.
    fn wait_until_ready(&mut self) -> Result<()> {
        let mut printed = String::new();
        loop {
            let start = printed.len();
            let length = self
                .problems
                .read_line(&mut printed)
                .map_err(|error| Failure::of("cannot read from PostgreSQL's supervisor", error))?;
            if length == 0 {
                return Err(Failure::of("PostgreSQL did not start", printed.trim_end()));
            }
            if printed[start..].trim_end() == "ready" {
                return Ok(());
            }
        }
    }

    /// The address of the database, for `sqlx`, `psql` and the like.
    pub(crate) fn database_url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Gives `command` the address of the database and of the server's programs, and nothing else
    /// that might lead it to another server.
    pub(crate) fn apply_to(&self, command: &mut Command) {
        without_client_variables(command)
            .env(DATABASE_URL, self.database_url())
            .env(BIN_DIR_VARIABLE, &self.bin);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let mut problems = String::new();
        // What is not text is worth less than the end of the supervisor, which is waited for next.
        let _ = self.problems.read_to_string(&mut problems);
        let _ = self.supervisor.wait();
        if !problems.is_empty() {
            eprintln!("xtask: when stopping PostgreSQL: {}", problems.trim_end());
        }
    }
}

/// Takes the variables of Postgres's clients out of the environment, `PGHOST` or `PGSSLMODE` for
/// example: they add to any address, and the server's programs heed some of them too.
fn without_client_variables(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") && name != BIN_DIR_VARIABLE {
            command.env_remove(name);
        }
    }
    command
}

/// The lines to add to `postgresql.conf`.
fn settings(port: u16, durability: Durability, has_pg_stat_statements: bool) -> String {
    let mut lines = vec![
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("port = {port}"),
        "max_connections = 300".to_owned(),
        "max_prepared_transactions = 20".to_owned(),
        "timezone = 'UTC'".to_owned(),
        "log_timezone = 'UTC'".to_owned(),
    ];
    if has_pg_stat_statements {
        lines.push("shared_preload_libraries = 'pg_stat_statements'".to_owned());
    }
    let of_durability: &[&str] = match durability {
        Durability::None => &[
            "fsync = off",
            // Without fsync it costs nothing, and commits keep the order of their steps.
            "synchronous_commit = on",
            "full_page_writes = off",
            "max_wal_size = 512MB",
            "shared_buffers = 256MB",
        ],
        Durability::Full => &[
            "fsync = on",
            "synchronous_commit = on",
            "full_page_writes = on",
            "shared_buffers = 512MB",
            // No checkpoint falls into a measurement of ordinary length.
            "max_wal_size = 4GB",
            "checkpoint_timeout = 30min",
        ],
    };
    lines.extend(of_durability.iter().map(ToString::to_string));
    lines.join("\n")
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::of("cannot get a free port on 127.0.0.1", error))
}

/// Whether the server's log says that its port was in use.
fn is_port_taken(failure: &Failure) -> bool {
    failure.to_string().contains("could not bind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_wait_for_the_disk_and_measurements_do() {
        let quick = settings(5433, Durability::None, true);
        assert!(quick.contains("port = 5433"));
        assert!(quick.contains("\nfsync = off"));
        assert!(quick.contains("pg_stat_statements"));
        let durable = settings(5433, Durability::Full, false);
        assert!(durable.contains("\nfsync = on"));
        assert!(durable.contains("\nfull_page_writes = on"));
        assert!(!durable.contains("pg_stat_statements"));
    }

    #[test]
    fn a_port_in_use_is_recognised_and_reported() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let bin = install_postgres::find_or_install(Install::Never).unwrap();
        let failure = Cluster::start_on(
            taken.local_addr().unwrap().port(),
            Durability::None,
            &bin,
            service_user::for_postgres().unwrap().as_ref(),
        )
        .unwrap_err();
        assert!(is_port_taken(&failure), "{failure}");
    }
}
