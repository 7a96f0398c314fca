//! The list of tests, and the outcomes that each of them claims to produce.
//! Invariant: an outcome that no test claims fails the suite, and so does a claim that the log of
//! its test does not bear out.

use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::task::LocalSet;
use ztunnel::outcome::Outcome;

use super::log::Log;
use super::{authority, beside, causes, flows, hostile, mesh, state};

/// No test takes longer; several wait for limits of 10 s.
const LONGEST: Duration = Duration::from_secs(120);

/// A test.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What stands in the log once it has passed.
    pub(crate) claims: &'static [Outcome],
    pub(crate) body: fn(Log) -> anyhow::Result<()>,
}

/// `"name": [OUTCOMES] => async_fn;` for each test of a file.
macro_rules! cases {
    ($($name:literal: [$($outcome:ident),*] => $body:path;)*) => {
        pub(crate) const CASES: &[$crate::inproc::suite::Case] = &[$(
            $crate::inproc::suite::Case {
                name: $name,
                claims: &[$(ztunnel::outcome::Outcome::$outcome),*],
                body: |log| $crate::inproc::suite::finish($body(log)),
            }
        ),*];
    };
}
pub(crate) use cases;

/// Subjects of a single file.
const CASES: &[&[Case]] =
    &[authority::CASES, beside::CASES, hostile::CASES, mesh::CASES, state::CASES];

fn all() -> impl Iterator<Item = &'static Case> {
    [CASES, causes::CASES, flows::CASES].into_iter().flatten().copied().flatten()
}

pub(crate) fn run(args: Vec<String>) -> ExitCode {
    let mut arguments = Arguments::from_iter(std::iter::once("inproc".to_owned()).chain(args));
    // Most of their time the tests wait for limits of the proxy.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let mut trials: Vec<_> = all().map(trial).collect();
    trials.push(Trial::test("every_outcome_is_claimed_by_a_test", || {
        every_outcome_is_claimed().map_err(failed)
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(case: &'static Case) -> Trial {
    Trial::test(case.name, || play(case).map_err(failed))
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

fn play(case: &Case) -> anyhow::Result<()> {
    let log = Log::new()?;
    let result = (case.body)(log.clone());
    let text = log.text();
    result.map_err(|error| {
        let process = Log::process();
        error.context(format!("connections so far:\n{text}the process:\n{process}"))
    })?;
    for claim in case.claims {
        let code = claim.code();
        ensure!(text.contains(&format!("cause=\"{code}\"")), "claims {code}, but:\n{text}");
    }
    Ok(())
}

/// Plays the body of a test on a worker of its own.
pub(crate) fn finish(body: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let limited = async {
        let body = tokio::time::timeout(LONGEST, body).await;
        body.unwrap_or_else(|_| Err(anyhow::anyhow!("does not end within {LONGEST:?}")))
    };
    tasks.block_on(&runtime, limited)
}

fn every_outcome_is_claimed() -> anyhow::Result<()> {
    let mut claims: BTreeMap<_, usize> =
        Outcome::ALL.iter().map(|outcome| (outcome.code(), 0)).collect();
    for claim in all().flat_map(|case| case.claims) {
        *claims.entry(claim.code()).or_default() += 1;
    }
    let unclaimed: Vec<_> =
        claims.into_iter().filter(|(_, tests)| *tests == 0).map(|(code, _)| code).collect();
    ensure!(unclaimed.is_empty(), "no test produces {unclaimed:?}");
    Ok(())
}
