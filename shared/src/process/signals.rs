//! When a process is told to end, and how it tells that it is ready.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::drain::{self, Outcome};
use crate::ready::Ready;

/// Ends when SIGTERM or SIGINT arrives; a second SIGINT then ends the process at once. The signals
/// are listened for from the call on.
pub fn asked_to_end() -> impl Future<Output = ()> {
    let mut interrupt = listen_for(SignalKind::interrupt());
    let mut terminate = listen_for(SignalKind::terminate());
    async move {
        let name = tokio::select! {
            () = arrived(&mut terminate) => "SIGTERM",
            () = arrived(&mut interrupt) => "SIGINT",
        };
        tracing::info!(signal = name, "ending");
        tokio::spawn(async move {
            arrived(&mut interrupt).await;
            tracing::warn!("second SIGINT, ending at once");
            std::process::exit(0);
        });
    }
}

/// Waits until `stop` ends or `quitting` reports `/quitquitquit`, then drains: what is open gets
/// `limit` to finish, the rest is closed by force. How it went is written to the log.
pub async fn drain_after(
    stop: impl Future<Output = ()>,
    quitting: &mut mpsc::UnboundedReceiver<()>,
    trigger: &drain::Trigger,
    limit: Duration,
) {
    tokio::select! {
        () = stop => {}
        _ = quitting.recv() => tracing::info!("ending, asked by /quitquitquit"),
    }
    // Tasks that were spawned just now must hold their guards before the drain counts them.
    tokio::task::yield_now().await;
    match trigger.start(Instant::now() + limit).await {
        Outcome::Graceful => tracing::info!("drained"),
        Outcome::Forced { open, stuck } => {
            tracing::warn!(open, stuck, deadline = ?limit, "drained by force");
        }
    }
}

/// Writes `ready` to the log, and later what changes about it, until the drain begins.
pub async fn tell_readiness(ready: Ready, drain: drain::Watch) {
    const STARTING: Duration = Duration::from_millis(20);
    const RUNNING: Duration = Duration::from_secs(1);
    let mut was_ready = None;
    let tell = async {
        loop {
            let pending = ready.pending();
            if pending.is_empty() && was_ready != Some(true) {
                was_ready = Some(true);
                tracing::info!("ready");
            } else if !pending.is_empty() && was_ready == Some(true) {
                was_ready = Some(false);
                tracing::warn!(pending = pending.join(", "), "not ready any more");
            }
            tokio::time::sleep(was_ready.map_or(STARTING, |_| RUNNING)).await;
        }
    };
    tokio::select! {
        () = tell => {}
        () = drain.draining() => {}
    }
}

/// `None` when the system has no signal to give; then only the other ways to end remain.
fn listen_for(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| tracing::error!(%error, "cannot listen for signals")).ok()
}

async fn arrived(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
