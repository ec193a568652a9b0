//! The private Postgres, as its users meet it: it works, and it leaves nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in tests, but not in their helpers"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a supervisor that nobody can wait for may take to clean up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A temporary directory for one test, which that test alone puts clusters into.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xtask-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        // Root's server runs as somebody else.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn xtask(temporary: &TemporaryDirectory) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args(["postgres", "--no-install"])
        .env("TMPDIR", &temporary.0);
    command
}

/// The `host:port` of a database's address.
fn host_and_port(url: &str) -> &str {
    url.trim()
        .trim_end_matches("/postgres")
        .rsplit('@')
        .next()
        .unwrap()
}

fn is_listening(url: &str) -> bool {
    TcpStream::connect(host_and_port(url)).is_ok()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_command_gets_a_server_and_its_exit_code_is_passed_on() {
    let temporary = TemporaryDirectory::new("command");
    let script = r#"
        set -e
        test -z "${PGHOST-}"
        test -x "$PG_BIN_DIR/postgres"
        "$PG_BIN_DIR/psql" "$DATABASE_URL" --no-psqlrc --tuples-only --no-align --command \
            "SELECT current_setting('server_encoding'), current_setting('lc_collate'),
                    current_setting('fsync'), current_setting('max_connections')" >&2
        echo "$DATABASE_URL"
        exit 7
    "#;
    let output = xtask(&temporary)
        .env("PGHOST", "nowhere.invalid")
        .env("DATABASE_URL", "postgres://nowhere.invalid/")
        .args(["--", "sh", "-c", script])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert!(stderr.contains("UTF8|C|off|300"), "{stderr}");
    let url = String::from_utf8(output.stdout).unwrap();
    assert!(url.starts_with("postgres://postgres@127.0.0.1:"), "{url}");
    assert!(!is_listening(&url));
    assert!(temporary.is_empty());
}

#[test]
fn the_server_runs_until_enter() {
    let temporary = TemporaryDirectory::new("enter");
    let mut child = xtask(&temporary)
        .arg("--durable")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line.strip_prefix("DATABASE_URL=").unwrap();
    assert!(is_listening(url));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!is_listening(url));
    assert!(temporary.is_empty());
}

#[test]
fn a_killed_xtask_leaves_neither_server_nor_files_nor_command() {
    let temporary = TemporaryDirectory::new("killed");
    let mut child = xtask(&temporary)
        .args(["--", "sh", "-c", "echo $DATABASE_URL; sleep 60; sleep 60"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(is_listening(&line));

    child.kill().unwrap();
    child.wait().unwrap();

    let start = Instant::now();
    // The command and its children held the other end of this pipe.
    assert_eq!(stdout.read_line(&mut String::new()).unwrap(), 0);
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "they were not ended"
    );
    wait_until("the directory is gone", || temporary.is_empty());
    assert!(!is_listening(&line));
}

#[test]
fn a_crashed_server_is_cleaned_up_too() {
    let temporary = TemporaryDirectory::new("crashed");
    let script = r#"kill -KILL "$(head -n 1 "$TMPDIR"/*/data/postmaster.pid)""#;
    let output = xtask(&temporary)
        .args(["--", "sh", "-c", script])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(temporary.is_empty(), "{stderr}");
}

#[test]
fn a_server_that_cannot_start_shows_why() {
    let temporary = TemporaryDirectory::new("broken");
    let bin = temporary.0.join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["initdb", "pg_ctl", "postgres"] {
        executable(&bin.join(program), "#!/bin/sh\necho out of order\nexit 1\n");
    }
    let output = xtask(&temporary).env("PG_BIN_DIR", &bin).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("initdb failed"), "{stderr}");
    assert!(stderr.contains("out of order"), "{stderr}");
    fs::remove_dir_all(&bin).unwrap();
    assert!(temporary.is_empty());
}

fn executable(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
