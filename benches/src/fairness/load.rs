//! What the loud pod does.

use std::time::Duration;

use clap::ValueEnum;
use harness::process::Running;
use harness::role::{bulk, load};
use serde::{Deserialize, Serialize};

use super::world::Neighbour;

/// A load of the victim's neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Load {
    /// nothing
    Nothing,
    /// 1,200 new connections per second
    Fresh,
    /// 4 streams, as fast as they go
    Bulk,
    /// 64 streams that are asked for and not read
    Unread,
}

/// It, running.
pub(super) struct Loud {
    load: Load,
    running: Running,
}

/// Longer than a measurement with its warm-up.
const MARGIN_SECS: f64 = 2.0;

impl Load {
    /// Its name in the JSON file.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is.
    pub(super) fn title(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Begins; has begun when this returns.
    pub(super) fn start(self, by: Neighbour<'_>, secs: f64) -> anyhow::Result<Option<Loud>> {
        let seconds = (secs + MARGIN_SECS).to_string();
        let bulk = |streams, rest: &[&str]| {
            let program = by.pod.role("bulk").args(["--target", &by.bulk, "--streams", streams]);
            program.args(["--down", "--seconds", &seconds]).args(rest)
        };
        let program = match self {
            Self::Nothing => return Ok(None),
            Self::Fresh => by
                .pod
                .role("load")
                .args(["--target", &by.http, "--rate", "1200", "--fresh", "--connections", "64"])
                .args(["--seconds", &seconds]),
            Self::Bulk => bulk("4", &[]),
            Self::Unread => bulk("64", &["--unread"]),
        };
        let mut running = program.start()?;
        running.line_with(load::COUNTING, Duration::from_secs(30))?;
        Ok(Some(Loud { load: self, running }))
    }
}

impl Loud {
    /// What it did, in words.
    pub(super) fn end(mut self) -> anyhow::Result<String> {
        const PATIENCE: Duration = Duration::from_secs(60);
        Ok(match self.load {
            Load::Nothing => String::new(),
            Load::Fresh => {
                let report: load::Report = self.running.result(PATIENCE)?;
                format!("{:.0} connections/s", report.rate())
            }
            Load::Bulk | Load::Unread => {
                let report: bulk::Report = self.running.result(PATIENCE)?;
                format!("{:.1} Gbit/s", report.bytes as f64 * 8e-9 / report.seconds.max(0.001))
            }
        })
    }
}
