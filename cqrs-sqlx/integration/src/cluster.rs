//! A Postgres of a test's own, which the test may kill.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use sqlx::{Connection as _, PgConnection};

/// Starts the server, waits for the end of its input, stops the server and removes its directory.
const SUPERVISOR: &str = include_str!("../../../xtask/src/supervise.sh");

/// How often to try to start a server again whose last processes may still be ending.
const RESTARTS: u32 = 100;

/// A running server with an empty database, that nobody else uses.
///
/// It is stopped and its directory removed with the value, also where the process is killed.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    supervisor: Child,
    output: BufReader<ChildStdout>,
}

impl Cluster {
    /// Makes a cluster and waits until it accepts connections. What a crash of the machine would
    /// cost is everything; a crash of the server costs nothing.
    ///
    /// # Panics
    ///
    /// If the programs of the server are not found, or it does not start.
    pub async fn start() -> Self {
        let bin = programs();
        let user = service_user();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("this machine has a free port")
            .port();
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nmax_connections = 100\nfsync = off\n\
             shared_buffers = 32MB\nmax_wal_size = 256MB"
        );
        let mut command = as_user(Command::new("sh"), user);
        command
            .args(["-c", SUPERVISOR, "supervise"])
            .arg(&bin)
            .args([&settings, "memory"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut supervisor = command.spawn().expect("`sh` runs");
        let output = supervisor.stdout.take().expect("its output is piped");
        let mut cluster = Self {
            bin,
            data: PathBuf::new(),
            port,
            user,
            supervisor,
            output: BufReader::new(output),
        };
        let mut said = String::new();
        let read = cluster.output.read_line(&mut said);
        assert!(
            read.is_ok() && said.trim_end() == "ready",
            "the server did not start: {said}"
        );
        cluster.data = cluster.directory().await;
        cluster
    }

    /// Returns the URL of its database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Kills the server as a crash would, and starts it again.
    ///
    /// # Panics
    ///
    /// If it does not come back.
    pub fn crash(&self) {
        let pid = std::fs::read_to_string(self.data.join("postmaster.pid"))
            .expect("a running server has written its process");
        let pid = pid.lines().next().expect("the process is the first line");
        let killed = Command::new("kill").args(["-KILL", pid]).status();
        assert!(
            killed.is_ok_and(|status| status.success()),
            "no process {pid}"
        );
        for _ in 0..RESTARTS {
            let mut start = as_user(Command::new(self.bin.join("pg_ctl")), self.user);
            let started = start
                .arg("-D")
                .arg(&self.data)
                .arg("-l")
                .arg(self.data.join("server.log"))
                .args(["-w", "-t", "30", "start"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            // The processes of the old server end by themselves, and it cannot start before.
            if started.is_ok_and(|status| status.success()) {
                return;
            }
        }
        panic!("the server did not come back after it was killed");
    }

    async fn directory(&self) -> PathBuf {
        let mut connection = PgConnection::connect(&self.url())
            .await
            .expect("the server is ready");
        let directory: String = sqlx::query_scalar("SELECT current_setting('data_directory')")
            .fetch_one(&mut connection)
            .await
            .expect("the server says where its data is");
        connection.close().await.expect("nothing is under way");
        PathBuf::from(directory)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.output.read_to_string(&mut String::new());
        let _ = self.supervisor.wait();
    }
}

/// Where the programs of the server are.
fn programs() -> PathBuf {
    if let Some(chosen) = env::var_os("PG_BIN_DIR") {
        return PathBuf::from(chosen);
    }
    let said = Command::new("pg_config").arg("--bindir").output();
    let said = said.expect("this test needs the programs of PostgreSQL: run `cargo xtask test`");
    Path::new(String::from_utf8_lossy(&said.stdout).trim()).to_path_buf()
}

/// The account to run the server as, which refuses to run as root.
pub(crate) fn service_user() -> Option<(u32, u32)> {
    let id = |args: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(args).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let account = |name| Some((id(&["-u", name])?, id(&["-g", name])?));
    account("postgres").or_else(|| account("nobody"))
}

pub(crate) fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    command.env("LC_ALL", "C").current_dir("/").process_group(0);
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}
