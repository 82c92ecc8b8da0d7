//! Chance that can be told again.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of random numbers. ChaCha's stream is specified, so that it is the same on every platform and in every
/// release of the crate; what is made of it here uses no distribution of a library, whose algorithm may change.
#[derive(Clone, Debug)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    /// One of the seed's streams. Each use has its own, so that a draw more here moves nothing there.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Self(rng)
    }

    /// From 0 up to and without 1, evenly.
    pub(super) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let numerator = (self.0.next_u64() >> 11) as f64;
        numerator / (1_u64 << 53) as f64
    }

    /// From `low` to `high`, evenly.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// From `low` to `high`, evenly.
    pub(super) fn whole(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high - low) + 1;
        low + u32::try_from(self.0.next_u64() % span).expect("below a span of u32")
    }

    /// Exponentially distributed: the wait for something that comes every `mean` on average.
    pub(super) fn wait(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// True so often.
    pub(super) fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Around 0 with a standard deviation of 1: the sum of four even numbers, which looks normal and is never far off.
    pub(super) fn noise(&mut self) -> f64 {
        ((0..4).map(|_| self.unit()).sum::<f64>() - 2.0) * 3_f64.sqrt()
    }

    /// An index into `weights`, each as often as it weighs.
    pub(super) fn pick(&mut self, weights: &[f64]) -> usize {
        let mut rest = self.unit() * weights.iter().sum::<f64>();
        let last = weights.len() - 1;
        weights
            .iter()
            .position(|weight| {
                rest -= weight;
                rest < 0.0
            })
            .unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_one_it_always_was() {
        let mut chance = Chance::new(7, 3);
        let told: Vec<_> = (0..3).map(|_| chance.whole(0, 999_999)).collect();
        assert_eq!(told, TOLD);
        assert_ne!(Chance::new(7, 4).unit().to_bits(), Chance::new(7, 3).unit().to_bits());
    }

    /// Of seed 7, stream 3.
    const TOLD: [u32; 3] = [190_366, 893_962, 556_749];

    #[test]
    fn numbers_stay_in_their_bounds_and_lie_as_they_should() {
        let mut chance = Chance::new(1, 0);
        let waits: Vec<_> = (0..20_000).map(|_| chance.wait(5.0)).collect();
        assert!(waits.iter().all(|wait| *wait >= 0.0 && wait.is_finite()));
        assert!((waits.iter().sum::<f64>() / 20_000.0 - 5.0).abs() < 0.2);
        let noise: Vec<_> = (0..20_000).map(|_| chance.noise()).collect();
        assert!((noise.iter().map(|one| one * one).sum::<f64>() / 20_000.0 - 1.0).abs() < 0.1);
        assert!((0..1000).all(|_| (3..=5).contains(&chance.whole(3, 5))));
        let picked = (0..10_000).filter(|_| chance.pick(&[1.0, 0.0, 3.0]) == 2).count();
        assert!((7000..8000).contains(&picked), "{picked}");
        assert!((0..1000).all(|_| chance.pick(&[1.0, 0.0, 3.0]) != 1));
    }
}
