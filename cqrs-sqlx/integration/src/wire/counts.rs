//! How much went over the wire.

/// How much went over the wire.
///
/// What belongs to the opening of a connection does not count, nor does what a cut kept from its
/// receiver; what [`Cut::delayed`](super::Cut::delayed) holds back does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Statements executed, prepared or sent as text.
    pub statements: usize,
    /// Answers completed, whatever was asked.
    pub round_trips: usize,
}

impl Counts {
    /// Returns what was counted since `earlier`.
    ///
    /// # Panics
    ///
    /// If `earlier` is not earlier.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |now: usize, then: usize| {
            now.checked_sub(then)
                .expect("`earlier` was taken from the same proxy before")
        };
        Self {
            statements: difference(self.statements, earlier.statements),
            round_trips: difference(self.round_trips, earlier.round_trips),
        }
    }
}
