//! Where a cached result comes from.

use prost::Message as _;
use regatta_model::RunId;
use regatta_wire::{reapi, v1};

/// What the origin is called among a result's metadata (`google.protobuf.Any`).
const TYPE_URL: &str = "type.googleapis.com/regatta.v1.ResultOrigin";

/// The result, with the run and the place that produced it.
pub(super) fn stamped(
    mut result: reapi::ActionResult,
    run: &RunId,
    place: Option<v1::Provenance>,
) -> reapi::ActionResult {
    let origin = v1::ResultOrigin {
        run_id: run.to_string(),
        r#where: place,
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

/// What produced a result; empty if the result does not say.
pub(super) fn origin_of(result: &reapi::ActionResult) -> v1::ResultOrigin {
    let metadata = result.execution_metadata.iter();
    let mut all = metadata.flat_map(|it| &it.auxiliary_metadata);
    let origin = all.find(|it| it.type_url == TYPE_URL);
    let origin = origin.and_then(|it| v1::ResultOrigin::decode(it.value.as_slice()).ok());
    origin.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_origin_counts() {
        let run = |text: &str| text.parse::<RunId>().expect("is an id");
        let bare = reapi::ActionResult::default();
        assert_eq!(origin_of(&bare), v1::ResultOrigin::default());
        let once = stamped(bare, &run("one"), None);
        let place = v1::Provenance {
            agent_id: "a".to_owned(),
            ..v1::Provenance::default()
        };
        let twice = stamped(once.clone(), &run("two"), Some(place.clone()));
        assert_eq!(origin_of(&once).run_id, "one");
        let twice = origin_of(&twice);
        assert_eq!((twice.run_id.as_str(), twice.r#where), ("two", Some(place)));
    }
}
