//! A process of its own for a test that looks at the whole of it.

use std::process::{Command, Stdio};

/// Set in the environment of such a process: the test's name.
const OWN: &str = "TTC_TEST_IN_OWN_PROCESS";

/// Whether this process is the test's own. If not, the test has run in one, and is over.
///
/// # Panics
///
/// If the test failed there, or there is none of this name.
#[must_use = "the test runs only in its own process"]
pub fn is_own(test: &str) -> bool {
    if std::env::var(OWN).is_ok_and(|own| own == test) {
        return true;
    }
    let tests = std::env::current_exe().expect("this binary's path");
    let output = Command::new(tests)
        .args(["--exact", test])
        .env(OWN, test)
        .stderr(Stdio::inherit())
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{test}, in a process of its own: {}", output.status);
    false
}
