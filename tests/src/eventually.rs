//! Waiting for a condition with a deadline: the only place of the suites that sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks `condition` until it gives a value; its last refusal is the error when `deadline` passes.
///
/// # Errors
/// What was waited for, and why it did not hold when it was last asked.
pub fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= end => {
                anyhow::bail!("{what}: not within {deadline:?}: {reason}")
            }
            Err(_) => pause(PAUSE),
        }
    }
}

/// Lets `duration` pass. For traffic that must last a while, never for hoping that it is enough.
#[expect(clippy::disallowed_methods, reason = "the one place that may wait by time")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// As [`eventually`], while the other tasks of the runtime go on.
///
/// # Errors
/// What was waited for, and why it did not hold when it was last asked.
#[expect(clippy::disallowed_methods, reason = "the other place that may wait by time")]
pub async fn becomes<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= end => {
                anyhow::bail!("{what}: not within {deadline:?}: {reason}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
