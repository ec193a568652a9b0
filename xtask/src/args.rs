//! The command line, as far as all commands share it.

use std::env;

use crate::failure::{Failure, Result};
use crate::install_postgres::Install;

/// The arguments after the name of the program.
///
/// # Errors
///
/// When an argument is not UTF-8.
pub(crate) fn from_environment() -> Result<Vec<String>> {
    env::args_os()
        .skip(1)
        .map(|arg| {
            arg.into_string().map_err(|arg| {
                Failure::new(format!(
                    "the argument `{}` is not UTF-8",
                    arg.to_string_lossy()
                ))
            })
        })
        .collect()
}

/// What stands before the first `--`, and what stands after it, if there is one.
pub(crate) fn split_at_dashes(mut args: Vec<String>) -> (Vec<String>, Option<Vec<String>>) {
    match args.iter().position(|arg| arg == "--") {
        Some(dashes) => {
            let after = args.split_off(dashes + 1);
            args.pop();
            (args, Some(after))
        }
        None => (args, None),
    }
}

/// The meaning of `--no-install`, if `arg` is that option.
pub(crate) fn install_option(arg: &str) -> Option<Install> {
    (arg == "--no-install").then_some(Install::Never)
}

/// The failure for an argument that `command` does not know.
pub(crate) fn unexpected(command: &str, arg: &str) -> Failure {
    Failure::new(format!(
        "`cargo xtask {command}` does not know the argument `{arg}`; see `cargo xtask help`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(args: &[&str]) -> Vec<String> {
        args.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_dashes_everything_stands_before() {
        assert_eq!(
            split_at_dashes(strings(&["a", "b"])),
            (strings(&["a", "b"]), None)
        );
    }

    #[test]
    fn only_the_first_dashes_split() {
        assert_eq!(
            split_at_dashes(strings(&["a", "--", "b", "--", "c"])),
            (strings(&["a"]), Some(strings(&["b", "--", "c"])))
        );
        assert_eq!(
            split_at_dashes(strings(&["--"])),
            (Vec::new(), Some(Vec::new()))
        );
    }
}
