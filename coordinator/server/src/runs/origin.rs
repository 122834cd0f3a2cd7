//! Which run a cached result comes from.

use prost::Message as _;
use regatta_model::RunId;
use regatta_wire::{reapi, v1};

/// What the origin is called among a result's metadata (`google.protobuf.Any`).
const TYPE_URL: &str = "type.googleapis.com/regatta.v1.ResultOrigin";

/// The result, with the run that produced it.
pub(super) fn stamped(mut result: reapi::ActionResult, run: &RunId) -> reapi::ActionResult {
    let origin = v1::ResultOrigin {
        run_id: run.to_string(),
    };
    let metadata = result.execution_metadata.get_or_insert_default();
    metadata
        .auxiliary_metadata
        .retain(|it| it.type_url != TYPE_URL);
    metadata.auxiliary_metadata.push(prost_types::Any {
        type_url: TYPE_URL.to_owned(),
        value: origin.encode_to_vec(),
    });
    result
}

/// The run that produced a result; empty if the result does not say.
pub(super) fn origin_of(result: &reapi::ActionResult) -> String {
    let metadata = result.execution_metadata.iter();
    let mut all = metadata.flat_map(|it| &it.auxiliary_metadata);
    let origin = all.find(|it| it.type_url == TYPE_URL);
    let origin = origin.and_then(|it| v1::ResultOrigin::decode(it.value.as_slice()).ok());
    origin.map(|it| it.run_id).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_origin_counts() {
        let run = |text: &str| text.parse::<RunId>().expect("is an id");
        let bare = reapi::ActionResult::default();
        assert_eq!(origin_of(&bare), "");
        let once = stamped(bare, &run("one"));
        let twice = stamped(once.clone(), &run("two"));
        assert_eq!(
            (origin_of(&once), origin_of(&twice)),
            ("one".into(), "two".into())
        );
    }
}
