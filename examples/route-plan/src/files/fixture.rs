//! Texts of the tests.

/// An instance of three customers.
pub(super) const SMALL: &str = "\
    20\n\
    3\n\
    0\t0\t0\t0\t0\t100\t0\n\
    1\t3\t4\t10\t0\t50\t5\n\
    2\t-6\t8.5\t10\t10\t60\t5\n\
    3\t0\t10\t20\t0\t90\t0\n";

/// The best-known routes of [`SMALL`], as `0025_S1`.
pub(super) const ROUTES: &str = "0025_S1  2  45.5  7\n2    1 2\n1    3\n";
