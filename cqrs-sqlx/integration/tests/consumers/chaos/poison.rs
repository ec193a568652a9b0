//! Events that cannot be applied or published, by the seed, and for how long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cqrs_core::{Error, Result};
use cqrs_integration::random::Random;
use uuid::Uuid;

/// How often an event is tried in vain that fails again and again. More than a policy waits for.
const MOST_TRIES: u32 = 6;

#[derive(Clone)]
pub(super) struct Poison {
    seed: u64,
    hangs: bool,
    healed: Arc<AtomicBool>,
    tried: Arc<Mutex<HashMap<Uuid, u32>>>,
}

impl Poison {
    pub(super) fn new(seed: u64, hangs: bool) -> Self {
        Self {
            seed,
            hangs,
            healed: Arc::default(),
            tried: Arc::default(),
        }
    }

    /// From now on nothing fails.
    pub(super) fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// Fails, panics or hangs where it is the event's turn.
    pub(super) async fn taste(&self, event: Uuid) -> Result<()> {
        if self.healed.load(Ordering::SeqCst) {
            return Ok(());
        }
        match self.draw(event) {
            0 | 1 if self.tries(event) <= MOST_TRIES => Err(Error::other("poison")),
            2 if self.tries(event) <= MOST_TRIES => panics(),
            3 | 4 if self.tries(event) == 1 => Err(Error::other("poison, the first time")),
            5 if self.tries(event) == 1 => panics(),
            6 if self.hangs && self.tries(event) <= 2 => std::future::pending().await,
            _ => Ok(()),
        }
    }

    /// Whether a statement that the event is applied by hangs this time.
    pub(super) fn hangs_in_statement(&self, event: Uuid) -> bool {
        let is_its_turn = self.hangs && !self.healed.load(Ordering::SeqCst);
        is_its_turn && self.draw(event) == 7 && self.tries(event) == 1
    }

    fn draw(&self, event: Uuid) -> u64 {
        let fold = (event.as_u128() >> 64) as u64 ^ event.as_u128() as u64;
        Random::new(self.seed ^ fold).below(80)
    }

    fn tries(&self, event: Uuid) -> u32 {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let tries = tried.entry(event).or_default();
        *tries += 1;
        *tries
    }
}

/// As `panic!`, without the message and the backtrace on the terminal.
fn panics() -> ! {
    std::panic::resume_unwind(Box::new("poison"))
}
