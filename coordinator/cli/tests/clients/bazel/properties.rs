//! Platform properties, as Bazel passes them on.

use super::super::fleet::Fleet;
use super::super::workstation::bookworm;
use super::{Bazel, Release};

/// What `/etc/debian_version` says where an action ran that has some platform property.
fn debian_where(bazel: &Bazel, property: Option<&str>) -> String {
    let property = property.map(|it| format!("--remote_default_exec_properties={it}"));
    let arguments: Vec<_> = ["//outputs:debian"]
        .into_iter()
        .chain(property.as_deref())
        .collect();
    bazel.build(&arguments).expect_code(0);
    bazel.station.read("bazel-bin/outputs/debian.txt")
}

#[test]
fn bazel_7_chooses_the_image() {
    let fleet = Fleet::with_image(&bookworm());
    let bazel = Bazel::executing_at(Release::Seven, fleet.url().trim_start_matches("grpc://"));
    let image = Release::Seven.image();
    assert!(debian_where(&bazel, None).starts_with("12."));
    for property in [
        format!("container-image={image}"),
        format!("container-image=docker://{image}"),
    ] {
        let version = debian_where(&bazel, Some(&property));
        assert!(!version.starts_with("12."), "{property}: {version}");
    }
    drop(bazel);
    fleet.stop();
}

#[test]
fn bazel_7_is_told_which_property_nobody_offers() {
    let fleet = Fleet::with_image(&Release::Seven.image());
    let bazel = Bazel::executing_at(Release::Seven, fleet.url().trim_start_matches("grpc://"));
    let ended = bazel.build(&[
        "//outputs:upper",
        "--remote_default_exec_properties=gpu=none-such",
    ]);
    assert_ne!(ended.code, Some(0), "{ended:#?}");
    ended.expect_complaint(&["lacks gpu=none-such (not offered)"]);
    drop(bazel);
    fleet.stop();
}
