//! Reproducible random numbers, without a dependency.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of a test that draws its input: that of the environment variable `CQRS_SEED`, and else
/// another one for each run. It prints the command that repeats the test, which is shown where the
/// test fails.
///
/// # Panics
///
/// Where `CQRS_SEED` is no number.
#[must_use]
pub fn seed() -> u64 {
    let seed = match env::var("CQRS_SEED") {
        Ok(seed) => seed
            .parse()
            .unwrap_or_else(|_| panic!("CQRS_SEED={seed} is no number")),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| now.as_secs() ^ u64::from(now.subsec_nanos()))
        }
    };
    let package = env::var("CARGO_PKG_NAME").map(|name| format!("-p {name} "));
    let thread = std::thread::current();
    println!(
        "CQRS_SEED={seed} cargo test {}{}",
        package.unwrap_or_default(),
        thread.name().unwrap_or_default()
    );
    seed
}

/// The generator splitmix64.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }
}
