//! What every runtime must do, as tests: `conformance_suite!(subject)` makes one test per case.
//!
//! A case panics when the runtime fails it. Commands are the static testee in the view, so images may be
//! empty. Cases that need isolation which a runtime does not claim pass by not applying.

mod command;
mod ending;
mod isolation;
mod subject;
mod view;

pub use command::*;
pub use ending::*;
pub use isolation::*;
pub use subject::{Claims, Outcome, Subject, Warm};
pub use view::*;

/// Makes a test of each case. `$subject` is an async function that answers
/// `Option<(Subject, impl Sized)>`: `None` where the runtime cannot be had (it says so itself), and
/// something to keep until the test ends.
#[macro_export]
macro_rules! conformance_suite {
    ($subject:path) => {
        $crate::conformance_suite! { @cases $subject:
            exit_codes_are_told
            signals_are_told
            output_is_exact
            environment_and_arguments_are_exact
            working_directories_are_below_the_work_path
            programs_that_cannot_start_say_why
            programs_are_found_in_the_path
            huge_commands_do_not_start
            commands_start_clean
            input_is_what_is_given
            usage_is_plausible
            timeouts_keep_output_and_kill_everything
            cancellation_kills_everything
            stragglers_die_with_their_command
            orphans_are_reaped
            dropping_a_container_kills_everything
            writes_stay_in_their_view
            inputs_can_be_rewritten_and_cached_blobs_cannot
            views_show_trees_as_they_are
            only_views_that_nobody_changed_are_shown_again
            input_roots_can_be_root_directories
            trees_that_no_root_directory_can_be_made_of_say_why
            a_hundred_executions_leave_nothing
            scratch_space_is_wiped
            the_root_is_read_only
            the_network_is_off
            the_init_is_out_of_reach
            fork_bombs_are_bounded
            want_of_memory_is_told_from_failure
            unknown_images_are_unavailable
        }
    };
    (@cases $subject:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some((subject, _kept)) = $subject().await {
                    $crate::conformance::$case(&subject).await;
                }
            }
        )*
    };
}
