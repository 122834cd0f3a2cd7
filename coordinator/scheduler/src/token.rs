//! Fencing tokens.

use regatta_model::{FencingToken, LeaseId};

use crate::{Record, SchedulerConfig};

/// Grants tokens, each larger than any before, and reserves them in blocks.
#[derive(Debug)]
pub(crate) struct TokenSource {
    next: u64,
    /// Tokens below this one are reserved.
    reserved_below: u64,
    block: u64,
}

impl TokenSource {
    pub(crate) fn new(config: &SchedulerConfig) -> Self {
        Self {
            next: config.first_token.0,
            reserved_below: config.first_token.0,
            block: config.token_block.max(1),
        }
    }

    /// The next token, a lease id that is as unique as it, and what must be durable before either is
    /// told to anyone.
    pub(crate) fn grant(&mut self) -> (LeaseId, FencingToken, Option<Record>) {
        let token = self.next;
        self.next = self.next.saturating_add(1);
        let reserved = (token >= self.reserved_below).then(|| {
            self.reserved_below = token.saturating_add(self.block);
            Record::TokensReserved(FencingToken(self.reserved_below.saturating_sub(1)))
        });
        (LeaseId(token), FencingToken(token), reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_granted_before_it_is_reserved() {
        let mut tokens = TokenSource::new(&SchedulerConfig {
            first_token: FencingToken(7),
            token_block: 3,
            ..SchedulerConfig::default()
        });
        let granted: Vec<_> = (0..5).map(|_| tokens.grant()).collect();
        let numbers: Vec<_> = granted
            .iter()
            .map(|(lease, token, _)| (lease.0, token.0))
            .collect();
        assert_eq!(numbers, [(7, 7), (8, 8), (9, 9), (10, 10), (11, 11)]);
        let reserved: Vec<_> = granted.into_iter().map(|(_, _, record)| record).collect();
        let upto = |last| Some(Record::TokensReserved(FencingToken(last)));
        assert_eq!(reserved, [upto(9), None, None, upto(12), None]);
    }
}
