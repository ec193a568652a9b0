//! The text of `cargo xtask help`.

use std::io::{self, Write as _};

const HELP: &str = "\
The project's own commands.

cargo xtask test [OPTIONS] [FILTER] [-- LIBTEST_ARGS...]
    Runs all tests and doctests of the workspace with all features, on a private
    PostgreSQL. With FILTER, runs the tests whose path (`module::test`, without the
    crate's name) contains it, and fails if there is none. Ends with the line
    `N passed, N failed, N ignored`. Its exit code is that of `cargo test`.
      -p PACKAGE          test this package alone; may be repeated
      --test TARGET       test this target of tests alone, as `store`; may be repeated
      --use-database-url  use the server of DATABASE_URL instead of a private one
      --no-install        fail, rather than install PostgreSQL, when there is none

cargo xtask bench [PART] [ARGS...]
    Runs the benchmarks in release mode, on a private PostgreSQL that is as durable as
    one in production: all of them in about 20 minutes, or PART. `--help` lists the
    parts, `PART --help` their ARGS; docs/performance.md says how to read the results.
    Some parts count with valgrind, which is installed with apt-get or dnf where it is
    missing. The part `instructions` does nothing else, and needs no server.
      --quick             in about 3 minutes, to see whether they work
      --check             fail where a target is missed

cargo xtask postgres [OPTIONS] [-- COMMAND...]
    Starts a private PostgreSQL, prints its DATABASE_URL and keeps it until Enter, end
    of input, or Ctrl-C: for whoever wants to use plain `cargo test`. With COMMAND, runs
    that with DATABASE_URL set, then stops, and passes on its exit code.
      --durable           with the settings of `bench` instead of those of `test`
      --no-install        as above

cargo xtask ci [--rivals]
    What must pass before a change is merged: formatting, lints under each set of
    features, documentation, tests, counts of instructions. Runs every step, also after
    one has failed.
      --rivals            check `benches/rivals` too, which compiles other crates

cargo xtask help
    Prints this.

The private PostgreSQL
    A new cluster in a temporary directory, on a free port of 127.0.0.1; servers that
    already run are left alone, and so is a DATABASE_URL that is already set. It is
    stopped and removed when the command ends, however that comes about. Started by
    root, it runs as the user `postgres`, or else `nobody`.

    Its programs are looked for in PG_BIN_DIR, on the PATH, where `pg_config` says, and
    in the usual places, newest version first. If there are none, they are installed
    with apt-get, dnf or brew; an installation by apt-get sets up no cluster of its own.

    What runs on it finds its address in DATABASE_URL and its programs in PG_BIN_DIR;
    other variables of PostgreSQL clients, such as PGHOST, are taken out of the
    environment.
";

/// Prints the help to standard output.
pub(crate) fn print() {
    // Nobody is left to tell when standard output is closed.
    let _ = io::stdout().write_all(HELP.as_bytes());
}
