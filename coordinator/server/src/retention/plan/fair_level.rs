//! What is scarce, shared.

/// How much each may have at most so that all have no more than `limit` together, if they have more: whoever has
/// less than others keeps all of it (max-min fairness).
pub(super) fn fair_level(mut amounts: Vec<u64>, limit: u64) -> Option<u64> {
    amounts.sort_unstable();
    let mut left = limit;
    for (sharers, amount) in (1..=amounts.len() as u64).rev().zip(amounts) {
        let level = left / sharers;
        if amount > level {
            return Some(level);
        }
        left -= amount;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(amounts: &[u64], limit: u64, expected: Option<u64>) {
        assert_eq!(fair_level(amounts.to_vec(), limit), expected, "{amounts:?}");
    }

    #[test]
    fn whoever_has_most_has_too_much() {
        check(&[], 0, None);
        check(&[5, 5], 10, None);
        check(&[90, 5, 5], 50, Some(40));
        check(&[30, 30, 1], 21, Some(10));
        check(&[1, 1], 0, Some(0));
    }

    proptest! {
        #[test]
        fn all_together_have_what_there_is(
            amounts in proptest::collection::vec(0..1000u64, 0..9),
            limit in 0..4000u64,
        ) {
            let level = fair_level(amounts.clone(), limit);
            let total: u64 = amounts.iter().sum();
            prop_assert_eq!(level.is_some(), total > limit);
            let left = |level: u64| amounts.iter().map(|amount| *amount.min(&level)).sum::<u64>();
            if let Some(level) = level {
                prop_assert!(left(level) <= limit && limit < left(level + 1));
            }
        }
    }
}
