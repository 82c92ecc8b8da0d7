//! A serial or a lot by a number: names are long, and a shift has thousands of them.

use serde::{Deserialize, Serialize};

/// A name's number: the same for ever, in every build, since checkpoints hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unit(pub u64);

impl Unit {
    /// Nobody is there, or nobody knows who.
    pub const NOBODY: Self = Self(0);

    /// The number of `name`, by FNV-1a with 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>). Among ten thousand names two
    /// are taken for one another once in 370 billion lines (n^2 / 2^65).
    #[must_use]
    pub fn of(name: &str) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let number = name.bytes().fold(OFFSET, |number, byte| (number ^ u64::from(byte)).wrapping_mul(PRIME));
        Self(number.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tables of the FNV reference code (test_fnv.c).
    #[test]
    fn numbers_are_those_of_the_reference() {
        assert_eq!(Unit::of(""), Unit(0xcbf2_9ce4_8422_2325));
        assert_eq!(Unit::of("a"), Unit(0xaf63_dc4c_8601_ec8c));
        assert_eq!(Unit::of("foobar"), Unit(0x8594_4171_f739_67e8));
    }
}
