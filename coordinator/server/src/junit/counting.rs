//! Whether a report's suites show the failures that they count. Pure.
//!
//! Tools differ in what they count: tests, or assertions; errors among failures, or apart; what is in a suite's suites, or
//! its own alone; what passed when it ran again, or not. A suite contradicts itself only if it shows too few by any of that.

/// What has been shown of failures so far.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// Failures and errors, whatever became of their tests,
    shown: u64,
    /// and how many before the test case.
    shown_before_case: u64,
    /// The suites that it is in, the innermost last.
    suites: Vec<Suite>,
}

/// A suite that has begun.
#[derive(Debug)]
struct Suite {
    name: String,
    /// How many failures or errors it says that it has, whichever are more.
    counted: u64,
    shown_before: u64,
}

impl Counting {
    /// A suite begins that says that it has so many failures, and so many errors.
    pub(super) fn begin_suite(&mut self, name: String, counts: &[Option<String>]) {
        let counts = counts.iter().flatten();
        let counts = counts.filter_map(|count| count.trim().parse::<u64>().ok());
        self.suites.push(Suite {
            name,
            counted: counts.max().unwrap_or_default(),
            shown_before: self.shown,
        });
    }

    /// The innermost suite ends; that it counts more failures than it has shown, if it does.
    pub(super) fn end_suite(&mut self) -> Option<String> {
        let Suite {
            name,
            counted,
            shown_before,
        } = self.suites.pop()?;
        let shown = self.shown.saturating_sub(shown_before);
        let of = match name.as_str() {
            "" => String::new(),
            name => format!(" `{name}`"),
        };
        (shown < counted).then(|| {
            format!(
                "its suite{of} counts {counted} failures or errors, and its test cases show {shown}"
            )
        })
    }

    /// A test case begins.
    pub(super) const fn begin_case(&mut self) {
        self.shown_before_case = self.shown;
    }

    /// There is a failure or an error.
    pub(super) const fn show(&mut self) {
        self.shown += 1;
    }

    /// The test case ends, and has failed or not: its attributes alone may say so.
    pub(super) const fn end_case(&mut self, has_failed: bool) {
        if has_failed && self.shown == self.shown_before_case {
            self.shown += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[track_caller]
    fn check_contradictions(xml: &str, expected: &[&str]) {
        let report = parse(xml).expect("is a report");
        assert_eq!(report.contradictions, expected, "{xml}");
    }

    #[test]
    fn a_suite_shows_what_it_counts() {
        let suite = |attributes: &str, inside: &str| {
            format!("<testsuite name='s' {attributes}>{inside}</testsuite>")
        };
        let (good, bad) = (
            "<testcase name='a'/>",
            "<testcase name='b'><failure/></testcase>",
        );
        let lacks = |counted: u64, shown: u64| {
            format!(
                "its suite `s` counts {counted} failures or errors, and its test cases show {shown}"
            )
        };
        let one = lacks(1, 0);
        check_contradictions(&suite("failures='1'", good), &[&one]);
        check_contradictions(&suite("errors='1' failures='0'", good), &[&one]);
        check_contradictions("<testsuite name='s' errors=' 1 '/>", &[&one]);
        check_contradictions(&suite("failures='2'", bad), &[&lacks(2, 1)]);
        let nested = format!(
            "<testsuites failures='1'>{}</testsuites>",
            suite("failures='1'", good)
        );
        let outer = "its suite counts 1 failures or errors, and its test cases show 0";
        check_contradictions(&nested, &[&one, outer]);
        // What comes before or after it is not in it.
        let beside = format!(
            "<testsuites>{}{}</testsuites>",
            suite("", bad),
            suite("failures='1'", good)
        );
        check_contradictions(&beside, &[&one]);

        let twice = "<testcase name='b'><failure/><error/></testcase>";
        let by_status = "<testcase name='b' status='failed'/>";
        let again = "<testcase name='b'><flakyFailure/></testcase>";
        for inside in [
            bad,
            by_status,
            again,
            "<error/>",
            &suite("failures='1'", bad),
        ] {
            check_contradictions(&suite("failures='1' errors='0'", inside), &[]);
        }
        check_contradictions(&suite("failures='1' errors='1'", bad), &[]);
        check_contradictions(&suite("failures='2'", twice), &[]);
        check_contradictions(&suite("failures='many' errors='-1'", good), &[]);
        check_contradictions(&suite("failures='0'", bad), &[]);
    }
}
