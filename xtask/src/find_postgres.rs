//! Where the programs of a Postgres server are.

use std::cmp::Reverse;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Result};

/// The variable that names the directory to use, for us and for what we run.
pub(crate) const BIN_DIR_VARIABLE: &str = "PG_BIN_DIR";

/// The programs that make a directory of use to us.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// Where packages put one directory for each version: parent, what precedes the version in the
/// directory's name, and where the programs are in it.
const VERSIONED: [(&str, &str, &str); 8] = [
    // Debian, Ubuntu
    ("/usr/lib/postgresql", "", "bin"),
    // The PostgreSQL project's own RPMs
    ("/usr", "pgsql-", "bin"),
    // openSUSE
    ("/usr/lib", "postgresql", "bin"),
    // Alpine
    ("/usr/libexec", "postgresql", ""),
    // Homebrew: Apple silicon, Intel, Linux
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    // Postgres.app
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// Where a build from source goes by default.
const FROM_SOURCE: &str = "/usr/local/pgsql/bin";

/// The directory of the server's programs: from `PG_BIN_DIR`, else the first match on the `PATH`,
/// by `pg_config`, or in the places where packages put it, newest version first.
///
/// # Errors
///
/// When `PG_BIN_DIR` is set to a directory without these programs: whoever set it would not expect
/// another version to be taken instead.
pub(crate) fn find() -> Result<Option<PathBuf>> {
    if let Some(chosen) = env::var_os(BIN_DIR_VARIABLE).filter(|value| !value.is_empty()) {
        let chosen = PathBuf::from(chosen);
        return if has_programs(&chosen) {
            Ok(Some(chosen))
        } else {
            Err(Failure::new(format!(
                "{BIN_DIR_VARIABLE} is `{}`, which does not hold all of {}",
                chosen.display(),
                PROGRAMS.join(", ")
            )))
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(by_pg_config())
        .chain(VERSIONED.into_iter().flat_map(versioned_directories))
        .chain([PathBuf::from(FROM_SOURCE)])
        .find(|directory| has_programs(directory))
        .map(behind_links))
}

/// Where the programs in `directory` really are, if they are links into another one that holds
/// them: there, the rest of the installation is beside them.
fn behind_links(directory: PathBuf) -> PathBuf {
    fs::canonicalize(directory.join("postgres"))
        .ok()
        .and_then(|program| program.parent().map(Path::to_path_buf))
        .filter(|target| has_programs(target))
        .unwrap_or(directory)
}

/// Whether the extension `pg_stat_statements` comes with the server in `bin`.
///
/// A server that is told to preload a library which is not there does not start.
pub(crate) fn has_pg_stat_statements(bin: &Path) -> bool {
    let by_config = pg_config(&bin.join("pg_config"), "--pkglibdir");
    let beside = [
        "../lib",
        "../lib/postgresql",
        "../lib64/pgsql",
        "../lib/pgsql",
    ];
    by_config
        .into_iter()
        .chain(beside.map(|directory| bin.join(directory)))
        .any(|directory| {
            ["so", "dylib"].iter().any(|suffix| {
                directory
                    .join(format!("pg_stat_statements.{suffix}"))
                    .is_file()
            })
        })
}

fn has_programs(directory: &Path) -> bool {
    PROGRAMS
        .iter()
        .all(|program| directory.join(program).is_file())
}

fn by_pg_config() -> Option<PathBuf> {
    pg_config(Path::new("pg_config"), "--bindir")
}

fn pg_config(program: &Path, question: &str) -> Option<PathBuf> {
    let output = Command::new(program).arg(question).output().ok()?;
    let answer = str::from_utf8(&output.stdout).ok()?.trim();
    (output.status.success() && !answer.is_empty()).then(|| PathBuf::from(answer))
}

fn versioned_directories((parent, prefix, inner): (&str, &str, &str)) -> Vec<PathBuf> {
    let names = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    newest_first(names, prefix)
        .into_iter()
        .map(|name| Path::new(parent).join(name).join(inner))
        .collect()
}

/// Those of `names` that are `prefix` and a version, the newest version first.
fn newest_first(names: impl IntoIterator<Item = String>, prefix: &str) -> Vec<String> {
    let mut versioned: Vec<(Vec<u32>, String)> = names
        .into_iter()
        .filter_map(|name| Some((version(name.strip_prefix(prefix)?)?, name)))
        .collect();
    versioned.sort_by_cached_key(|(version, _)| Reverse(version.clone()));
    versioned.into_iter().map(|(_, name)| name).collect()
}

/// The numbers of a version such as `9.6` or `17`; `None` for anything else, `18beta1` included.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str], prefix: &str) -> Vec<String> {
        newest_first(names.iter().map(ToString::to_string), prefix)
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert_eq!(
            sorted(&["9.6", "15", "9.10", "100", "17"], ""),
            ["100", "17", "15", "9.10", "9.6"]
        );
    }

    #[test]
    fn names_that_are_no_version_are_left_out() {
        assert_eq!(sorted(&["latest", "18beta1", "", "16"], ""), ["16"]);
        assert_eq!(
            sorted(
                &["pgsql-9.6", "pgsql-13", "share", "pgsql-", "pgsql-12-devel"],
                "pgsql-"
            ),
            ["pgsql-13", "pgsql-9.6"]
        );
    }

    #[test]
    fn a_directory_without_the_programs_does_not_count() {
        assert!(!has_programs(Path::new("/")));
    }
}
