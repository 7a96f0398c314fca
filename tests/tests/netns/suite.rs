//! The list of tests, and what happens when a program that one needs is missing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::enter::find;
use libtest_mimic::{Arguments, Failed, Trial};

use super::{
    bare, certificates, drain, handover, inward, many, peers, pods, policy, programs, redirect,
    routes, shares, traffic, waypoint,
};

/// A test: its name, the programs that it needs, and its body.
pub(crate) type Case = (&'static str, &'static [&'static str], fn() -> anyhow::Result<()>);

/// How often a case does something: as often as the variable `name` says, or `few` times.
pub(crate) fn times(name: &str, few: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(said) => Ok(said.parse()?),
        Err(_) => Ok(few),
    }
}

/// Lets time pass, for a test of what passes with it.
pub(crate) fn pass(time: Duration) {
    let until = Instant::now() + time;
    // A thread may be woken before.
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

pub(crate) fn run(args: Vec<String>) -> ExitCode {
    let mut arguments = Arguments::from_iter(std::iter::once("netns".to_owned()).chain(args));
    // Each test is a dozen processes: a few at a time, whatever the machine.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let strict = std::env::var_os("CI").is_some();
    let cases: Vec<Case> = [
        bare::CASES,
        pods::CASES,
        redirect::CASES,
        traffic::CASES,
        programs::CASES,
        routes::CASES,
        inward::CASES,
        policy::CASES,
        handover::CASES,
        many::CASES,
        shares::CASES,
        drain::CASES,
        certificates::CASES,
        peers::ENVOY,
        peers::NGHTTPX,
        peers::NODE,
        &waypoint::cases(),
    ]
    .concat();
    let trials = cases.into_iter().map(|case| trial(case, strict)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial((name, needs, body): Case, strict: bool) -> Trial {
    let missing: Vec<_> = needs.iter().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return Trial::test(name, move || {
            body().map_err(|error| Failed::from(format!("{error:#}")))
        });
    }
    eprintln!("IGNORED: {name}: this machine has no {missing:?}");
    let missing = format!("{missing:?} must be installed where CI is set");
    Trial::test(name, move || Err(Failed::from(missing))).with_ignored_flag(!strict)
}
