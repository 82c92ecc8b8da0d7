//! Defects by code, since ever: sums that upstream and scrapes see, so none ever falls.

use std::sync::Arc;

use crate::model::tally::{MOST_CODES, OTHER_CODES};

/// How many there are of each code; each code once.
pub type Codes = Vec<(Arc<str>, u64)>;

/// Holds what is told until `now` has more. Who takes rejects back makes a sum wait, not fall. Codes beyond the first hundred
/// are one.
pub(super) fn raise(held: &mut Codes, now: &[(Arc<str>, u64)]) {
    let mut other = 0;
    for (code, count) in now {
        let place = held.iter().position(|(of, _)| of == code);
        match place.filter(|_| **code != *OTHER_CODES) {
            Some(place) => held[place].1 = held[place].1.max(*count),
            None if held.len() < MOST_CODES && **code != *OTHER_CODES => held.push((code.clone(), *count)),
            None => other += count,
        }
    }
    match held.iter_mut().find(|(of, _)| **of == *OTHER_CODES) {
        Some((_, most)) => *most = (*most).max(other),
        None if other > 0 => held.push((OTHER_CODES.into(), other)),
        None => {}
    }
}

/// Adds what others count.
pub(super) fn add(sums: &mut Codes, more: &[(Arc<str>, u64)]) {
    for (code, count) in more {
        match sums.iter_mut().find(|(of, _)| of == code) {
            Some((_, sum)) => *sum += count,
            None => sums.push((code.clone(), *count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(told: &[(&str, u64)]) -> Codes {
        told.iter().map(|&(code, count)| (code.into(), count)).collect()
    }

    #[test]
    fn what_is_taken_back_waits() {
        let mut held = Codes::new();
        for (now, expected) in [(10, 10), (7, 10), (9, 10), (12, 12)] {
            raise(&mut held, &of(&[("scratch", now)]));
            assert_eq!(held, of(&[("scratch", expected)]));
        }
        raise(&mut held, &of(&[("dent", 1)]));
        assert_eq!(held, of(&[("scratch", 12), ("dent", 1)]), "what is no longer said stays");
    }

    #[test]
    fn codes_without_end_take_no_room_without_end() {
        let mut held = Codes::new();
        for code in 0..1000_u64 {
            raise(&mut held, &[(code.to_string().into(), 1), (OTHER_CODES.into(), code)]);
        }
        assert_eq!(held.len(), MOST_CODES);
        let other = held.iter().find(|(code, _)| **code == *OTHER_CODES);
        assert_eq!(other, Some(&(OTHER_CODES.into(), 1000)), "with the last of those beyond");
    }

    #[test]
    fn what_people_and_machines_find_is_one_sum() {
        let mut sums = of(&[("bridge", 3)]);
        add(&mut sums, &of(&[("scratch", 2), ("bridge", 1)]));
        assert_eq!(sums, of(&[("bridge", 4), ("scratch", 2)]));
    }
}
