//! When to come back.

use std::time::Duration;

use prost::Message as _;
use tonic::Status;

use super::duration_from_wire;
use crate::rpc;

/// How long whoever sent a status wants not to be asked again, if it says so (google.rpc `RetryInfo`).
#[must_use]
pub fn retry_delay(status: &Status) -> Option<Duration> {
    let details = rpc::Status::decode(status.details()).ok()?.details;
    let mut infos = details
        .iter()
        .map(|detail| detail.to_msg::<rpc::RetryInfo>());
    let info = infos.find_map(Result::ok)?;
    duration_from_wire(&info.retry_delay?).ok()
}
