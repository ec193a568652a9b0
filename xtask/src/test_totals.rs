//! Counting the tests of a run by what the test runner prints.

use std::io::{self, Read, Write};
use std::ops::AddAssign;

/// How many tests ended in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TestTotals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// Test binaries that began and never came to a result: a test took the process with it.
    pub(crate) crashed: u64,
}

impl TestTotals {
    /// Whether not a single test was selected.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The totals of a run that failed: each crash was one failed test, whatever became of the
    /// others in its binary.
    pub(crate) fn with_crashes_as_failures(mut self) -> Self {
        self.failed += self.crashed;
        self
    }

    /// Reads the line that ends the output of each test binary, `test result: ok. 3 passed; 0
    /// failed; …`; `None` for any other line.
    fn parse(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        let count = |label: &str| {
            counts.split(['.', ';']).find_map(|part| {
                let (number, of) = part.trim().split_once(' ')?;
                (of == label).then(|| number.parse().ok())?
            })
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            ignored: count("ignored")?,
            crashed: 0,
        })
    }
}

impl AddAssign for TestTotals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.crashed += other.crashed;
    }
}

/// Copies `from` to `to` as it comes, and counts the tests in it.
///
/// It copies pieces, not lines, so that the name of a running test is seen before its result.
///
/// # Errors
///
/// When reading or writing fails.
pub(crate) fn copy_and_count(mut from: impl Read, mut to: impl Write) -> io::Result<TestTotals> {
    let mut counter = Counter::default();
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
        for piece in buffer[..length].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                counter.read_line(&line);
                line.clear();
            }
        }
    }
    counter.read_line(&line);
    Ok(counter.finish())
}

/// Adds up the results of one test binary after the other.
#[derive(Default)]
struct Counter {
    totals: TestTotals,
    is_running: bool,
}

impl Counter {
    fn read_line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if let Some(result) = TestTotals::parse(&line) {
            self.totals += result;
            self.is_running = false;
        } else if is_beginning(&line) {
            self.totals.crashed += u64::from(self.is_running);
            self.is_running = true;
        }
    }

    fn finish(mut self) -> TestTotals {
        self.totals.crashed += u64::from(self.is_running);
        self.totals
    }
}

/// Whether `line` begins the output of a test binary: `running 3 tests`.
fn is_beginning(line: &str) -> bool {
    line.trim_end()
        .strip_prefix("running ")
        .and_then(|rest| rest.split_once(' '))
        .is_some_and(|(number, tests)| {
            number.parse::<u64>().is_ok() && (tests == "test" || tests == "tests")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields its bytes one at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    const OUTPUT: &str = "\
running 3 tests
test a ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.12s

   Doc-tests library

test result: FAILED. 10 passed; 5 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    const TOTALS: TestTotals = TestTotals {
        passed: 12,
        failed: 5,
        ignored: 1,
        crashed: 0,
    };

    #[test]
    fn results_are_added_up_and_output_is_kept() {
        let mut copy = Vec::new();
        let totals = copy_and_count(OUTPUT.as_bytes(), &mut copy).unwrap();
        assert_eq!(totals, TOTALS);
        assert_eq!(copy, OUTPUT.as_bytes());
    }

    #[test]
    fn pieces_of_lines_are_put_together() {
        let totals = copy_and_count(Trickle(OUTPUT.as_bytes()), io::sink()).unwrap();
        assert_eq!(totals, TOTALS);
    }

    #[test]
    fn colours_and_a_missing_line_end_do_not_matter() {
        let line = "test result: \x1b[32mok\x1b(B\x1b[m. 3 passed; 0 failed; 2 ignored; 0 measured";
        let totals = copy_and_count(line.as_bytes(), io::sink()).unwrap();
        assert_eq!((totals.passed, totals.failed, totals.ignored), (3, 0, 2));
    }

    #[test]
    fn a_binary_without_a_result_has_crashed() {
        let output = format!("running 7 tests\ntest a ... ok\n{OUTPUT}\nrunning 1 test\n");
        let totals = copy_and_count(output.as_bytes(), io::sink()).unwrap();
        assert_eq!(totals.crashed, 2);
        assert_eq!(totals.failed, 5);
        assert_eq!(totals.with_crashes_as_failures().failed, 7);
    }

    #[test]
    fn other_lines_do_not_count() {
        for line in [
            "test result: unclear",
            "the test result: ok. 3 passed; 0 failed; 0 ignored",
            "test result: ok. 3 passed; 0 failed",
            "test result: ok. many passed; 0 failed; 0 ignored",
            "test test_result ... ok",
        ] {
            assert_eq!(TestTotals::parse(line), None, "{line}");
        }
    }
}
