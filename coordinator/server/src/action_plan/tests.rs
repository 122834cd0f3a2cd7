use std::collections::HashSet;

use regatta_wire::reapi::command::EnvironmentVariable;
use regatta_wire::reapi::platform::Property;

use super::*;

fn defaults() -> PlanDefaults {
    PlanDefaults {
        image: Some("default:1".parse().expect("an image")),
        resources: Resources {
            cpu_milli: 1000,
            memory_bytes: 0,
        },
        timeout: Duration::from_secs(60),
        maximum_timeout: Duration::from_secs(3600),
        tenant_properties: BTreeMap::new(),
    }
}

fn platform(properties: &[(&str, &str)]) -> reapi::Platform {
    let properties = properties
        .iter()
        .map(|(name, value)| Property {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        })
        .collect();
    reapi::Platform { properties }
}

fn action() -> reapi::Action {
    reapi::Action {
        command_digest: Some(Digest::of(b"command").into()),
        input_root_digest: Some(Digest::EMPTY.into()),
        ..Default::default()
    }
}

fn command(arguments: &[&str]) -> reapi::Command {
    reapi::Command {
        arguments: arguments.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn plan(action: &reapi::Action, command: &reapi::Command) -> Result<Work, ActionPlanError> {
    plan_with(action, command, &defaults())
}

fn plan_with(
    action: &reapi::Action,
    command: &reapi::Command,
    defaults: &PlanDefaults,
) -> Result<Work, ActionPlanError> {
    let request = ActionRequest {
        tenant: "main".parse().expect("a tenant"),
        run: "run".parse().expect("a run"),
        priority: -3,
        digest: Digest::of(b"action"),
        action,
        command,
    };
    plan_action(request, defaults)
}

#[test]
fn an_action_that_says_nothing_gets_the_defaults() {
    let work = plan(&action(), &command(&["true"])).expect("valid");
    assert_eq!(work.spec.image, "default:1");
    assert_eq!(work.spec.isolation, i32::from(v1::Isolation::Run));
    assert_eq!((work.spec.cpu_milli, work.spec.memory_bytes), (1000, 0));
    assert_eq!(work.spec.timeout.map(|timeout| timeout.seconds), Some(60));
    assert!(!work.spec.network);
    assert_eq!((work.units.len(), work.priority), (1, -3));
    assert_eq!(work.merge_key, Some(Digest::of(b"action")));
    assert_eq!(work.platform, regatta_model::Platform::default());
}

#[test]
fn properties_become_fields_and_the_rest_requirements() {
    let mut action = action();
    action.platform = Some(platform(&[
        ("Arch", "x86-64"),
        ("OSFamily", "Linux"),
        ("container-image", "docker://debian@sha256:00"),
        ("cpu", "500m"),
        ("dockerNetwork", "standard"),
        ("isolation", "fresh"),
        ("memory", "512M"),
        ("pool", "large"),
    ]));
    let mut command = command(&["true"]);
    #[expect(deprecated, reason = "the action's platform must win over it")]
    {
        command.platform = Some(platform(&[("pool", "small")]));
    }
    let work = plan(&action, &command).expect("valid");
    assert_eq!(work.spec.image, "debian@sha256:00");
    assert_eq!(work.spec.isolation, i32::from(v1::Isolation::Fresh));
    assert_eq!(
        (work.spec.cpu_milli, work.spec.memory_bytes),
        (500, 512 << 20)
    );
    assert!(work.spec.network);
    let requirements: Vec<_> = work.platform.iter().collect();
    assert_eq!(
        requirements,
        [("Arch", "x86-64"), ("OSFamily", "linux"), ("pool", "large")]
    );
}

#[test]
fn the_input_root_is_mounted_where_siso_wants_it_and_advice_is_ignored() {
    let mut action = action();
    action.platform = Some(platform(&[
        ("InputRootAbsolutePath", "/b/f/w"),
        ("dockerPrivileged", "False"),
        ("dockerReuse", "True"),
        ("label:action_default", "1"),
    ]));
    let work = plan(&action, &command(&["true"])).expect("valid");
    assert_eq!(work.spec.mount_path, "/b/f/w");
    assert_eq!(work.platform, regatta_model::Platform::default());
    action.platform = Some(platform(&[("dockerPrivileged", "true")]));
    let work = plan(&action, &command(&["true"])).expect("valid");
    assert_eq!(work.platform.get("dockerPrivileged"), Some("true"));
}

#[test]
fn an_input_root_becomes_the_root_directory_where_an_agent_can_do_that() {
    let planned = |properties: &[(&str, &str)]| {
        let mut action = action();
        action.platform = Some(platform(properties));
        plan(&action, &command(&["true"]))
    };
    for properties in [("chroot-input-root", "true"), ("dockerChrootPath", ".")] {
        let work = planned(&[properties]).expect("valid");
        let requirements: Vec<_> = work.platform.iter().collect();
        assert_eq!(requirements, [("chroot-input-root", "true")]);
        assert!(work.spec.chroot);
    }
    let work = planned(&[("chroot-input-root", "false")]).expect("valid");
    assert!(!work.spec.chroot && work.platform.iter().next().is_none());
    for properties in [("chroot-input-root", "yes"), ("dockerChrootPath", "root")] {
        let error = planned(&[properties]).expect_err("no such value");
        assert!(error.field().contains(properties.0), "{error}");
    }
}

#[test]
fn a_tenants_properties_count_where_its_actions_say_nothing() {
    let with = |tenant: &str, properties: &[(&str, &str)]| PlanDefaults {
        tenant_properties: BTreeMap::from([(
            tenant.parse().expect("a tenant"),
            Platform::new(properties.iter().copied()),
        )]),
        ..defaults()
    };
    let properties = [("chroot-input-root", "true"), ("pool", "large")];
    let silent = plan_with(&action(), &command(&["true"]), &with("main", &properties));
    let silent = silent.expect("valid");
    assert!(silent.spec.chroot);
    assert_eq!(silent.platform.iter().collect::<Vec<_>>(), properties);

    let mut action = action();
    action.platform = Some(platform(&[
        ("chroot-input-root", "false"),
        ("OSFamily", "linux"),
    ]));
    let own = plan_with(&action, &command(&["true"]), &with("main", &properties));
    let own = own.expect("valid");
    assert!(!own.spec.chroot, "what an action says comes first");
    let requirements: Vec<_> = own.platform.iter().collect();
    assert_eq!(requirements, [("OSFamily", "linux"), ("pool", "large")]);

    let strangers = with("other", &properties);
    let other = plan_with(&action, &command(&["true"]), &strangers).expect("valid");
    assert_eq!(other.platform.get("pool"), None);
}

#[test]
fn whatever_actions_leave_unsaid_is_in_the_fingerprint() {
    let tenant = |name: &str| name.parse::<TenantId>().expect("a tenant");
    let of = |image: Option<&str>, properties: &[(&str, &str)]| PlanDefaults {
        image: image.map(|image| image.parse().expect("an image")),
        tenant_properties: BTreeMap::from([(
            tenant("main"),
            Platform::new(properties.iter().copied()),
        )]),
        ..defaults()
    };
    let all = [
        of(None, &[]),
        of(Some("default:1"), &[]),
        of(Some("default:2"), &[]),
        of(None, &[("pool", "large")]),
        of(None, &[("pool", "small")]),
        of(None, &[("poo", "llarge")]),
        of(None, &[("pool", "large"), ("zone", "a")]),
    ];
    let prints = |name| all.iter().map(move |it| it.fingerprint(&tenant(name)));
    assert_eq!(prints("main").collect::<HashSet<_>>().len(), all.len());
    // Of the others' there are but the three images.
    assert_eq!(prints("other").collect::<HashSet<_>>().len(), 3);
    assert!(prints("main").eq(prints("main")));
}

#[test]
fn a_tenants_property_that_means_nothing_is_named() {
    let mut defaults = defaults();
    let properties = Platform::new([("chroot-input-root", "perhaps")]);
    let tenant: TenantId = "main".parse().expect("a tenant");
    defaults
        .tenant_properties
        .insert(tenant.clone(), properties);
    let (whose, error) = defaults
        .check_tenant_properties()
        .expect_err("no such value");
    assert_eq!((whose, error.name()), (tenant, "chroot-input-root"));
    defaults.tenant_properties.clear();
    assert!(defaults.check_tenant_properties().is_ok());
}

#[test]
fn the_commands_platform_counts_if_the_action_has_none() {
    let mut command = command(&["true"]);
    #[expect(
        deprecated,
        reason = "clients of versions before 2.2 know no other place"
    )]
    {
        command.platform = Some(platform(&[("pool", "small")]));
    }
    let work = plan(&action(), &command).expect("valid");
    assert_eq!(work.platform.get("pool"), Some("small"));
}

#[test]
fn an_action_not_to_be_cached_is_not_merged() {
    let action = reapi::Action {
        do_not_cache: true,
        ..action()
    };
    assert_eq!(
        plan(&action, &command(&["true"])).expect("valid").merge_key,
        None
    );
}

#[test]
fn outputs_of_old_clients_become_output_paths() {
    let mut command = command(&["true"]);
    #[expect(
        deprecated,
        reason = "clients of versions before 2.1 set no other fields"
    )]
    {
        command.output_files = vec!["b".to_owned()];
        command.output_directories = vec!["a".to_owned()];
    }
    let planned = |command| plan(&action(), &command).expect("valid").spec.command;
    let old = planned(command.clone()).expect("a command");
    assert_eq!(old.output_paths, ["a", "b"]);
    // Clients that know both fill in both, and mean the new one.
    command.output_paths = vec!["c".to_owned()];
    assert_eq!(LegacyOutputs::of(&command), None);
    let new = planned(command).expect("a command");
    assert_eq!(new.output_paths, ["c"]);
    #[expect(deprecated, reason = "what is left of the old fields")]
    {
        assert_eq!(old.output_directories, ["a"]);
        assert!(new.output_directories.is_empty());
    }
}

#[track_caller]
fn check_refused(action: &reapi::Action, command: &reapi::Command, field: &str) {
    let error = plan(action, command).expect_err("must be refused");
    assert_eq!(error.field(), field, "{error}");
}

#[test]
fn commands_that_cannot_run_are_refused_by_field() {
    let refused = |command, field| check_refused(&action(), &command, field);
    refused(command(&[]), "command.arguments");
    refused(command(&[""]), "command.arguments");
    refused(command(&["a", "\0"]), "command.arguments[1]");
    for directory in ["/abs", "..", "a/../..", "a//b", "a/"] {
        let working_directory = directory.to_owned();
        let command = reapi::Command {
            working_directory,
            ..command(&["a"])
        };
        refused(command, "command.working_directory");
    }
    for path in ["/abs", "../../out", "out/", "a\0"] {
        let output_paths = vec![path.to_owned()];
        let working_directory = "w".to_owned();
        let command = reapi::Command {
            working_directory,
            output_paths,
            ..command(&["a"])
        };
        refused(command, "command.output_paths");
    }
    for names in [&["A=B"][..], &[""], &["A", "A"]] {
        let environment_variables = names
            .iter()
            .map(|name| EnvironmentVariable {
                name: (*name).to_owned(),
                value: String::new(),
            })
            .collect();
        let command = reapi::Command {
            environment_variables,
            ..command(&["a"])
        };
        refused(command, "command.environment_variables");
    }
}

#[test]
fn an_output_may_lie_beside_the_working_directory() {
    let command = reapi::Command {
        working_directory: "a/b".to_owned(),
        output_paths: vec!["../../out".to_owned()],
        ..command(&["true"])
    };
    assert!(plan(&action(), &command).is_ok());
}

#[test]
fn properties_without_meaning_are_refused_by_name() {
    for (properties, name) in [
        (&[("cpu", "many")][..], "cpu"),
        (&[("memory", "1X")], "memory"),
        (&[("isolation", "none")], "isolation"),
        (&[("network", "maybe")], "network"),
        (
            &[("network", "off"), ("dockerNetwork", "standard")],
            "dockerNetwork",
        ),
        (&[("container-image", "a b")], "container-image"),
        (&[("InputRootAbsolutePath", "src")], "InputRootAbsolutePath"),
        (&[("InputRootAbsolutePath", "/")], "InputRootAbsolutePath"),
        (
            &[("InputRootAbsolutePath", "/a/../b")],
            "InputRootAbsolutePath",
        ),
        (&[("cpu", "1"), ("cpu", "2")], "cpu"),
    ] {
        let action = reapi::Action {
            platform: Some(platform(properties)),
            ..action()
        };
        check_refused(
            &action,
            &command(&["a"]),
            &format!("platform.properties[{name}]"),
        );
    }
}

#[test]
fn timeouts_have_a_limit() {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let with = |timeout| reapi::Action {
        timeout,
        ..action()
    };
    let timeout = |action| plan(&action, &command(&["a"])).map(|work| work.spec.timeout);
    assert_eq!(timeout(with(seconds(3600))), Ok(seconds(3600)));
    assert_eq!(timeout(with(seconds(0))), Ok(seconds(60)));
    check_refused(&with(seconds(3601)), &command(&["a"]), "action.timeout");
    check_refused(&with(seconds(-1)), &command(&["a"]), "action.timeout");
}

#[test]
fn an_action_without_an_input_root_is_refused() {
    let action = reapi::Action {
        input_root_digest: None,
        ..action()
    };
    check_refused(&action, &command(&["a"]), "action.input_root_digest");
}
