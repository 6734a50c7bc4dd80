//! Whatever a peer or a device sends: no panic, and the properties of each target hold.

use upcie_fuzz::TARGETS;

macro_rules! targets {
    ($($name:ident => $target:literal,)*) => {
        mod fuzz {
            $(
                #[test]
                fn $name() {
                    upcie_fuzz::fuzz($target);
                }
            )*
        }

        #[test]
        fn every_target_is_run() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$($target),*]);
        }
    };
}

targets! {
    any_bytes_of_a_client_end_its_session_at_most => "vfio_user_server",
    any_bytes_of_a_server_are_an_error_at_most => "vfio_user_client",
    any_message_of_an_owner_is_a_region_or_an_error => "share",
    any_capability_lists_end => "config_space",
    any_host_drives_the_controller => "machine",
    buffers_of_any_shape_are_transferred_or_refused => "transfers",
    any_completion_entries_lose_and_double_no_command => "completions",
    any_structures_are_shown => "structures",
    any_log_page_or_feature_is_shown => "tables",
    any_addresses_are_parsed_or_refused => "addresses",
    any_fault_plans_are_parsed_or_refused => "fault_plans",
}

/// Each target has an entry point of libFuzzer, which this build knows nothing of.
#[test]
fn every_target_can_be_guided_by_coverage() {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let entries = std::fs::read_dir(package.join("fuzz_targets")).unwrap().count();
    assert_eq!(entries, TARGETS.len(), "an entry point without a target");
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        let source = std::fs::read_to_string(package.join(&path)).expect(&path);
        assert!(source.contains(&format!("run({:?}, input)", target.name)), "{path}");
        assert!(manifest.contains(&format!("path = {path:?}")), "{path} is not in the manifest");
    }
}
