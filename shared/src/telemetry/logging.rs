//! The log of the process: levels that can be changed while it runs, lines through the [`Sink`].
//!
//! Invariants: one log per process, however often it is started; a change of levels is refused whole
//! or taken whole.

mod layer;
mod levels;

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use self::levels::{Change, Clause, ParseError};

use self::layer::Lines;
use self::levels::Levels;
use super::line::Format;
use super::sink::Sink;

/// The log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is malformed.
    #[error("parsing the log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Another subscriber is in place.
    #[error("installing the log, another one is in place")]
    Taken(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// The log is gone.
    #[error("changing the levels of the log")]
    Reload(#[source] reload::Error),
}

/// Changes the levels of the log. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    filter: reload::Handle<EnvFilter, Registry>,
    levels: Arc<Mutex<Levels>>,
}

/// The log of this process, once started.
static STARTED: OnceLock<Handle> = OnceLock::new();

/// Starts the log of this process. `filter` is in the form of `RUST_LOG`, usually `info`.
/// When it was started before, that one stays and its handle is returned.
///
/// # Errors
/// The filter is malformed, or another subscriber was installed.
pub fn start(filter: &str, format: Format, sink: Sink) -> Result<Handle, Error> {
    let parsed = EnvFilter::try_new(filter).map_err(Error::Filter)?;
    if let Some(started) = STARTED.get() {
        return Ok(started.clone());
    }
    let (reloaded, handle) = reload::Layer::new(parsed);
    let subscriber = Registry::default().with(reloaded).with(Lines::new(sink, format));
    let levels = Arc::new(Mutex::new(Levels::new(filter)));
    let handle = Handle { filter: handle, levels };
    tracing::subscriber::set_global_default(subscriber).map_err(Error::Taken)?;
    Ok(STARTED.get_or_init(|| handle).clone())
}

impl Handle {
    /// The filter in force.
    #[must_use]
    pub fn current(&self) -> String {
        self.levels.lock().to_string()
    }

    /// Adds clauses to the filter, or begins again from the one of the start.
    ///
    /// # Errors
    /// The filter that results is malformed; the one before stays.
    pub fn change(&self, change: &Change) -> Result<(), Error> {
        let mut levels = self.levels.lock();
        let changed = levels.changed(change);
        let filter = EnvFilter::try_new(changed.to_string()).map_err(Error::Filter)?;
        self.filter.reload(filter).map_err(Error::Reload)?;
        *levels = changed;
        Ok(())
    }
}
