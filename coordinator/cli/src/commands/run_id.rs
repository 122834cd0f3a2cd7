//! Runs by the beginning of their ids.

use crate::client::Client;
use crate::exit_code::{ExitCode, Failure};

/// How long an id is that needs no completion, in characters.
const WHOLE: usize = 32;
/// How many of the newest runs a beginning is looked for in.
const LOOKED_AT: u32 = 1000;
/// How many runs are named that it may be.
const NAMED: usize = 5;

/// The id that begins as `text` does; `text` itself if no run of late is called so, which the coordinator
/// then has its answer for.
pub(super) async fn complete(client: &Client, text: String) -> Result<String, Failure> {
    if text.len() >= WHOLE || text.is_empty() {
        return Ok(text);
    }
    let runs = client.list_runs(LOOKED_AT, false).await?.runs;
    choose(text, runs.iter().map(|run| run.run_id.as_str()))
}

fn choose<'a>(text: String, ids: impl Iterator<Item = &'a str>) -> Result<String, Failure> {
    let found: Vec<_> = ids.filter(|id| id.starts_with(&text)).collect();
    match found.as_slice() {
        [] => Ok(text),
        [one] => Ok((*one).to_owned()),
        [..] => {
            let named = found[..found.len().min(NAMED)].join(", ");
            let message = format!("{} runs begin with {text}: {named}; say more", found.len());
            Err(Failure::new(ExitCode::BadConfiguration, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_enough_if_no_other_has_it() {
        let ids = ["abc1", "abc2", "b"];
        let chosen = |text: &str| choose(text.to_owned(), ids.into_iter());
        assert_eq!(chosen("abc1").expect("one"), "abc1");
        assert_eq!(chosen("b").expect("one"), "b");
        assert_eq!(chosen("c").expect("none"), "c");
        let failure = chosen("ab").expect_err("two");
        assert_eq!(
            failure.to_string(),
            "2 runs begin with ab: abc1, abc2; say more"
        );
    }
}
