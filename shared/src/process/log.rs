//! The log of the process, and what it says about panics.

use std::time::Duration;

use crate::config::{Environment, Process};
use crate::process::Failure;
use crate::telemetry::{Format, Sink, access, logging};

/// Where lines go, and how their levels are changed. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    /// Lines about connections.
    pub access: access::Log,
    /// Changes levels; `None` where the log of the process is not ours (tests).
    pub levels: Option<logging::Handle>,
}

impl Log {
    /// Starts the log of this process on standard output, and tells panics through it.
    pub fn start(process: &Process) -> Result<Self, Failure> {
        Self::on_stdout(&process.log, process.log_format)
    }

    /// The same for commands without a full configuration.
    pub fn plain(environment: &impl Environment) -> Result<Self, Failure> {
        let filter = environment.variable("RUST_LOG").filter(|filter| !filter.is_empty());
        Self::on_stdout(filter.as_deref().unwrap_or("info"), Format::Plain)
    }

    fn on_stdout(filter: &str, format: Format) -> Result<Self, Failure> {
        let sink = Sink::start(std::io::stdout()).map_err(|error| Failure::Log(error.into()))?;
        let levels = logging::start(filter, format, sink.clone())
            .map_err(|error| Failure::Log(error.into()))?;
        tell_panics(sink.clone());
        Ok(Self { access: access::Log::new(sink, format), levels: Some(levels) })
    }

    /// A log that writes lines about connections only, for tests that run several in one process.
    pub fn to(sink: Sink) -> Self {
        Self { access: access::Log::new(sink, Format::Plain), levels: None }
    }

    /// Waits a moment until everything is written.
    pub fn flush(&self) {
        self.access.flush(Duration::from_secs(1));
    }
}

/// A panic in a connection ends that connection only, and must be seen; one that ends a worker
/// ends the process (`shared::workers`), and must be written before that.
fn tell_panics(sink: Sink) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(thread, place, "panic, please report it: {message}");
        sink.flush(Duration::from_millis(200));
    }));
}
