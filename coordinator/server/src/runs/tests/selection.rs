//! Which tests of a suite run.

use std::sync::atomic::{AtomicUsize, Ordering};

use regatta_wire::v1;

use super::fixture::{Fixture, libtest, spec};
use super::{PASSED, completed, names, runner};

fn only(filters: &[&str], tests: &[&str]) -> v1::RunSpec {
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let mut job = libtest("unit");
    if let Some(v1::job::Kind::Suite(suite)) = &mut job.kind {
        suite.filters = owned(filters);
        suite.only_tests = owned(tests);
    }
    spec(vec![job])
}

#[tokio::test]
async fn tests_are_chosen_by_their_whole_names_and_must_be_there() {
    let fixture = Fixture::start().await;
    let tests = names(3).into_iter().chain(["test_0001_too".to_owned()]);
    let _agent = fixture.agent("a", runner(tests, |_| Some(completed(0, PASSED))));
    let story = fixture.run(only(&[], &["test_0001", "test_0002"])).await;
    assert_eq!((story.counts().planned, story.counts().passed), (2, 2));
    let both = fixture.run(only(&["0001"], &["test_0001", "test_0002"]));
    assert_eq!(both.await.counts().planned, 1);
    let absent = fixture.run(only(&[], &["test_0001", "gone"])).await;
    assert_eq!(absent.end().verdict(), v1::Verdict::NotReleasable);
    let message = &absent.job("unit").message;
    assert!(message.ends_with("not in the suite: `gone`"), "{message}");
}

#[tokio::test]
async fn a_run_stops_at_as_many_failures_as_it_may_have() {
    let fixture = Fixture::start().await;
    let answered = AtomicUsize::new(0);
    let _agent = fixture.agent(
        "a",
        runner(names(50), move |_| {
            // Three tests fail, and no other ever answers.
            (answered.fetch_add(1, Ordering::SeqCst) < 3).then(|| completed(1, "no"))
        }),
    );
    let run = v1::RunSpec {
        max_failures: 3,
        ..only(&[], &[])
    };
    let story = fixture.run(run).await;
    assert_eq!((story.counts().failed, story.counts().not_run), (3, 47));
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
}
