//! Steps of which nothing is expected.

use std::panic::Location;
use std::thread;

/// What a step of a scenario is not asked yet. A test that ends before it is would pass, whatever
/// has happened; so it fails.
#[derive(Debug, Default)]
pub(super) struct Unasked(Option<String>);

impl Unasked {
    /// There was a step, where the caller is. What was not asked of the one before is given up:
    /// it may be there for this one, as time that passes.
    #[track_caller]
    pub(super) fn step(&mut self) {
        let at = Location::caller();
        self.0 = Some(format!(
            "nothing is expected of the step at {at}: say it with one of the `then` methods"
        ));
    }

    /// Something was expected of it.
    pub(super) fn asked(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unasked {
    fn drop(&mut self) {
        if let Some(complaint) = self.0.take()
            && !thread::panicking()
        {
            panic!("{complaint}");
        }
    }
}
