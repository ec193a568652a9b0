//! A real pooler.

use std::ffi::OsString;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use super::Prepared;
use crate::cluster::{as_user, service_user};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Program {
    child: Child,
    /// Held for its drop, which removes the directory.
    _directory: TempDir,
}

impl Program {
    pub(super) async fn start(
        program: OsString,
        options: &PgConnectOptions,
        port: u16,
        connections: usize,
        prepared: Prepared,
        application_name: &str,
    ) -> Self {
        let directory = TempDir::new().expect("the directory for temporary files is writable");
        let path = directory.path();
        // It refuses to run as root, and reads this as somebody else.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
            .expect("the directory is ours");
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let most = match prepared {
            Prepared::Renamed => 200,
            Prepared::AsTheyCome => 0,
        };
        // It refuses an empty one.
        let named = match application_name {
            "" => String::new(),
            name => format!(" application_name={name}"),
        };
        let users = path.join("users.txt");
        let user = format!("\"{}\" \"\"\n", options.get_username());
        std::fs::write(&users, user).expect("the directory is ours");
        let settings = format!(
            "[databases]\n* = host={host} port={server}{named}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {users}\n\
             pool_mode = transaction\ndefault_pool_size = {connections}\nserver_round_robin = 1\n\
             ignore_startup_parameters = extra_float_digits\nmax_prepared_statements = {most}\n",
            server = options.get_port(),
            users = users.display(),
        );
        let ini = path.join("pgbouncer.ini");
        std::fs::write(&ini, settings).expect("the directory is ours");
        let mut command = as_user(Command::new(program), service_user());
        command.arg("-q").arg(&ini).stdin(Stdio::null());
        let child = command.spawn().expect("PGBOUNCER is a program");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "PGBOUNCER does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self {
            child,
            _directory: directory,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone already where this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
