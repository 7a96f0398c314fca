//! What the proxy of one test says about connections.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use harness::eventually::becomes;
use shared::telemetry::{Format, Sink, logging};
use ztunnel::outcome::Outcome;

/// Longer than any limit of the proxy that a test runs into.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What the process says besides, by all proxies of all tests together.
static PROCESS: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let sink = Sink::start(lines.clone()).expect("a thread can be started");
    logging::start("info", Format::Plain, sink).expect("the log is started here alone");
    lines
});

/// The access log of one test.
#[derive(Clone)]
pub(crate) struct Log {
    lines: Lines,
    sink: Sink,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&lines).into_owned()
    }
}

impl Log {
    pub(crate) fn new() -> io::Result<Self> {
        // Levels of the access log, too, are those of the process.
        LazyLock::force(&PROCESS);
        let lines = Lines::default();
        Ok(Self { sink: Sink::start(lines.clone())?, lines })
    }

    /// Where a proxy writes it.
    pub(crate) fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// The last lines that the process has said besides; those of other tests are among them.
    pub(crate) fn process() -> String {
        let text = PROCESS.text();
        let from = text.lines().count().saturating_sub(20);
        text.lines().skip(from).map(|line| format!("{line}\n")).collect()
    }

    /// The log so far.
    pub(crate) fn text(&self) -> String {
        self.sink.flush(Duration::from_secs(1));
        self.lines.text()
    }

    /// Waits for a line with all of `fragments`.
    pub(crate) async fn line(&self, fragments: &[&str]) -> anyhow::Result<String> {
        let what = format!("a line with {fragments:?}");
        becomes(SOON, &what, async || {
            let text = self.text();
            let mut lines = text.lines();
            let line = lines.find(|line| fragments.iter().all(|part| line.contains(part)));
            line.map(ToOwned::to_owned).ok_or("no such line")
        })
        .await
    }

    /// Waits until a connection has failed with `outcome`, said in words with `message` in them.
    pub(crate) async fn tells(&self, outcome: Outcome, message: &str) -> anyhow::Result<String> {
        let line = self.line(&[&format!("cause=\"{}\"", outcome.code())]).await?;
        anyhow::ensure!(line.contains(message), "no {message:?} in: {line}");
        Ok(line)
    }
}
