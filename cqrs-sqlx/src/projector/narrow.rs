//! Looking for the event that fails.
//!
//! A page that fails is rolled back as a whole, so nothing of it is applied. It is known to hold an
//! event that fails, and is tried in halves: the first half, if that fails its first half, and so
//! on; what succeeds is committed, and takes its events out of the question. So an event among
//! 1000 is found after ten tries. Each try is a transaction of its own, which also copes with a
//! connection that a panic has left in the middle of something, and with a database that has given
//! up the whole transaction.

use cqrs_core::Position;

use super::claim::{Claim, Segment};

/// The next events of a segment of which one fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Narrow {
    pub(super) segment: Segment,
    /// Where the segment stands.
    from: Position,
    /// Where the page ended that failed.
    upto: Position,
    /// Of this many events one fails.
    suspects: usize,
    /// How many to try next.
    next: usize,
    /// Whether to try them one by one.
    singly: bool,
}

impl Narrow {
    /// Of the next `suspects` events one fails.
    pub(super) fn halves(claim: &Claim, suspects: usize) -> Self {
        Self::within(claim.segment, (claim.from, claim.to), suspects)
    }

    fn within(segment: Segment, (from, upto): (Position, Position), suspects: usize) -> Self {
        Self {
            segment,
            from,
            upto,
            suspects,
            next: (suspects / 2).max(1),
            singly: false,
        }
    }

    /// As [`halves`](Self::halves), for events that are better not tried twice.
    pub(super) fn singly(claim: &Claim, suspects: usize) -> Self {
        Self::halves(claim, suspects).one_by_one()
    }

    fn one_by_one(self) -> Self {
        Self {
            next: 1,
            singly: true,
            ..self
        }
    }

    /// The event after the next `before` fails.
    pub(super) fn before(claim: &Claim, before: usize) -> Self {
        Self {
            next: before,
            ..Self::halves(claim, before + 1)
        }
    }

    /// Whether the event may still be in front of a segment that stands there. Other workers may have
    /// applied some of the page.
    pub(super) fn is_about(&self, segment: Segment, position: Position) -> bool {
        self.segment == segment && self.from <= position && position < self.upto
    }

    /// How many events to try.
    pub(super) fn most(&self) -> u32 {
        u32::try_from(self.next).unwrap_or(u32::MAX)
    }

    /// What is left when so many were applied, up to a position.
    pub(super) fn passed(self, events: usize, position: Position) -> Option<Self> {
        let left = self.suspects.checked_sub(events).filter(|left| *left > 0)?;
        let narrow = Self::within(self.segment, (position, self.upto), left);
        Some(if self.singly {
            narrow.one_by_one()
        } else {
            narrow
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Segment = Segment { number: 0, of: 1 };

    /// Of the next `suspects` events, which have the positions behind this one, one fails.
    fn halves(from: i64, suspects: usize) -> Narrow {
        let upto = Position(from + suspects as i64);
        Narrow::within(SEGMENT, (Position(from), upto), suspects)
    }

    /// How many tries it takes until the event at `poison` is tried alone, of a page of `size`
    /// that has just failed.
    fn tries(size: usize, poison: usize) -> usize {
        let (mut at, mut tries) = (0, 0);
        let mut narrow = halves(0, size);
        loop {
            tries += 1;
            let page = at..at + narrow.most() as usize;
            assert!(page.end <= size);
            if !page.contains(&poison) {
                at = page.end;
                narrow = narrow.passed(page.len(), Position(at as i64)).unwrap();
                assert_eq!(narrow.from, Position(at as i64));
            } else if page.len() == 1 {
                assert_eq!(at, poison);
                return tries;
            } else {
                narrow = halves(narrow.from.0, page.len());
            }
        }
    }

    #[test]
    fn every_event_is_found_within_the_logarithm() {
        for poison in 0..1000 {
            assert!(tries(1000, poison) <= 11, "{poison}");
        }
        assert_eq!(tries(1, 0), 1);
    }

    #[test]
    fn a_known_event_is_tried_alone_after_those_before_it() {
        let narrow = Narrow {
            next: 7,
            ..halves(0, 8)
        };
        assert_eq!(narrow.most(), 7);
        let narrow = narrow.passed(7, Position(7)).unwrap();
        assert_eq!(narrow.most(), 1);
        assert_eq!(narrow.passed(1, Position(8)), None);
    }

    #[test]
    fn singly_is_one_by_one() {
        let mut narrow = halves(0, 3).one_by_one();
        for position in 1..3 {
            assert_eq!(narrow.most(), 1);
            narrow = narrow.passed(1, Position(position)).unwrap();
        }
        assert_eq!(narrow.passed(1, Position(3)), None);
    }

    #[test]
    fn it_is_about_its_page_wherever_others_have_come_in_it() {
        let narrow = halves(3, 4);
        let other = Segment { number: 0, of: 2 };
        for (position, expected) in [(2, false), (3, true), (6, true), (7, false)] {
            assert_eq!(narrow.is_about(SEGMENT, Position(position)), expected);
            assert!(!narrow.is_about(other, Position(position)));
        }
    }
}
