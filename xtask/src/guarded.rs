//! Child processes that do not outlive this one.

use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use crate::failure::{Failure, Result};

/// Waits for the end of its input, then ends the process that a line of it named, or else its own
/// process group: politely, then by force.
///
/// The long form `kill -s` is the one after which every `sh` understands `--`.
const GUARD: &str = r#"
trap '' HUP INT TERM
target=0
while read -r pid; do target=$pid; done
kill -s TERM -- "$target"
sleep 2
kill -s KILL -- "$target"
"#;

/// Which processes a child shares the terminal's signals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// A process group of its own, so that all the child's children are ended with it.
    Own,
    /// The group of this process, which a child needs to read from the terminal. Only the child
    /// itself is ended.
    Shared,
}

/// A running child that is ended when this process ends, be it through `kill -9`.
///
/// A process cannot act on its own death, so another one has to: a `sh` whose standard input is a
/// pipe that only this process can write to. The kernel closes the pipe when this process is gone,
/// whatever the reason, and the `sh` then ends the child. Handlers for signals would need a
/// dependency and miss `kill -9`; looking for a process id again and again would be late, and wrong
/// once the id is reused.
///
/// The guard is there first, and a child with a group of its own is born into the guard's: there is
/// no moment at which the child runs unguarded.
#[derive(Debug)]
pub(crate) struct GuardedChild {
    child: Child,
    guard: Guard,
    is_finished: bool,
}

impl GuardedChild {
    /// Starts `command` and its guard.
    ///
    /// # Errors
    ///
    /// When either of the two programs cannot be started.
    pub(crate) fn spawn(command: &mut Command, group: Group) -> Result<Self> {
        let mut guard = Guard::spawn()?;
        if group == Group::Own {
            command.process_group(guard.group()?);
        }
        let child = command.spawn().map_err(|error| {
            Failure::of(
                format!("cannot run `{}`", command.get_program().to_string_lossy()),
                error,
            )
        })?;
        if group == Group::Shared {
            guard.aim_at(&child);
        }
        Ok(Self {
            child,
            guard,
            is_finished: false,
        })
    }

    /// The child's standard output, if it was piped and not taken before.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the child to end.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell; the child is ended then.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        let status = self
            .child
            .wait()
            .map_err(|error| Failure::of("cannot wait for a child process", error))?;
        self.is_finished = true;
        Ok(status)
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        if !self.is_finished {
            self.guard.act();
            let _ = self.child.wait();
        }
    }
}

/// The `sh` that ends a child when its input ends.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn spawn() -> Result<Self> {
        Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|error| Failure::of("cannot run `sh`", error))
    }

    /// The process group that it leads.
    fn group(&self) -> Result<i32> {
        i32::try_from(self.0.id()).map_err(|error| Failure::of("a process id is too large", error))
    }

    /// Lets it end `child` instead of its own group.
    fn aim_at(&mut self, child: &Child) {
        if let Some(stdin) = &mut self.0.stdin {
            // It fails if somebody killed the guard; the child is none the worse for it.
            let _ = writeln!(stdin, "{}", child.id());
        }
    }

    /// Lets it end the child.
    fn act(&mut self) {
        drop(self.0.stdin.take());
    }
}

impl Drop for Guard {
    /// Disarms it. Once the child has ended, its process id is free to be used again.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` to its end and returns its exit code.
///
/// # Errors
///
/// When it cannot be started.
pub(crate) fn run(command: &mut Command, group: Group) -> Result<u8> {
    Ok(exit_code(GuardedChild::spawn(command, group)?.wait()?))
}

/// The exit code that a shell would report: for a signal, 128 and its number.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_exit_code_is_passed_on() {
        let code = run(Command::new("sh").args(["-c", "exit 7"]), Group::Own);
        assert_eq!(code, Ok(7));
    }

    #[test]
    fn a_signal_has_the_exit_code_of_a_shell() {
        let code = run(Command::new("sh").args(["-c", "kill -KILL $$"]), Group::Own);
        assert_eq!(code, Ok(137));
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = run(&mut Command::new("no-such-program"), Group::Own).unwrap_err();
        assert!(failure.to_string().contains("no-such-program"), "{failure}");
    }

    #[test]
    fn dropping_ends_a_child_in_the_shared_group() {
        let mut command = Command::new("sleep");
        command.arg("60").stdout(Stdio::piped());
        let mut child = GuardedChild::spawn(&mut command, Group::Shared).unwrap();
        let mut stdout = child.take_stdout().unwrap();
        let start = Instant::now();
        drop(child);
        assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it was not ended"
        );
    }

    #[test]
    fn dropping_ends_a_child_that_ignores_polite_requests() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; sleep 60; sleep 60"]);
        command.stdout(Stdio::piped());
        let mut child = GuardedChild::spawn(&mut command, Group::Own).unwrap();
        let mut stdout = BufReader::new(child.take_stdout().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        let start = Instant::now();
        drop(child);
        assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it was not ended"
        );
    }

    #[test]
    fn dropping_ends_the_whole_group() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 60 & sleep 60"])
            .stdout(Stdio::piped());
        let mut child = GuardedChild::spawn(&mut command, Group::Own).unwrap();
        let mut stdout = child.take_stdout().unwrap();
        let start = Instant::now();
        drop(child);
        // Both sleepers hold the pipe: its end is the proof that both are gone.
        assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "they were not ended"
        );
    }
}
