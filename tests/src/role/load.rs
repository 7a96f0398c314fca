//! An open-loop HTTP/1.1 load generator. Requests have times at which they are due; latency counts
//! from then, not from when they could be sent, so a stall is seen in full (no coordinated omission).
//! With rate 0 it sends as fast as answers come (closed loop), for maxima.
//! One thread, one epoll, no allocation per request: on the same machine as what it measures, it
//! must cost little and wake up on time (the runtime's timers know only milliseconds).

mod answer;
mod connection;
mod engine;
mod tally;
mod wire;

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::tls;
use engine::Engine;

/// What to send, how often, how long.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// Name or address, and port.
    #[arg(long)]
    target: String,
    /// Connections that share the rate.
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Requests per second over all connections; 0: as many as possible.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// With a rate: all connections have their requests due at the same moments, not evenly spread.
    #[arg(long)]
    together: bool,
    /// How long; 0: until the input is closed.
    #[arg(long, default_value_t = 0.0)]
    seconds: f64,
    /// Stop after so many requests; 0: no limit.
    #[arg(long, default_value_t = 0)]
    requests: u64,
    /// Path of the request.
    #[arg(long, default_value = "/bytes/1024")]
    path: String,
    /// A new TCP connection for each request.
    #[arg(long)]
    fresh: bool,
    /// Seconds at the start that are not counted.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// Stay until the input is closed, for whoever wants to look at what this process spent.
    #[arg(long)]
    stay: bool,
    #[command(flatten)]
    tls: tls::Args,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Requests that were due while counting and got a whole answer with status 200.
    pub ok: u64,
    /// Whole answers with status 200 that came while counting, whenever they were due.
    pub answers: u64,
    /// Requests that did not, by kind.
    pub errors: BTreeMap<String, u64>,
    /// When the first and the last error were seen, by the machine's clock.
    pub errors_at_ms: Option<(u64, u64)>,
    /// Answers by the name of the server.
    pub servers: BTreeMap<String, u64>,
    /// Seconds that were counted.
    pub seconds: f64,
    /// Requests that were due and could not be sent before the end; in the latency they count with
    /// the time that they had waited by then.
    pub unsent: u64,
    /// Latency in microseconds: median, 90 %, 99 %, 99.9 %, maximum.
    pub p50_us: u64,
    #[expect(missing_docs, reason = "see p50_us")]
    pub p90_us: u64,
    #[expect(missing_docs, reason = "see p50_us")]
    pub p99_us: u64,
    #[expect(missing_docs, reason = "see p50_us")]
    pub p999_us: u64,
    #[expect(missing_docs, reason = "see p50_us")]
    pub max_us: u64,
    /// How many requests took how long: upper bound in microseconds, count. Bounds grow by 5 %.
    pub histogram: Vec<(u64, u64)>,
}

impl Report {
    /// All errors together.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds.max(0.001)
    }
}

/// Printed when counting begins, after the warm-up.
pub const COUNTING: &str = "counting";
/// Printed when the time is over; the last answers may still be on their way.
pub const COUNTED: &str = "counted";

/// Runs the load and prints the report.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let target = args.target.to_socket_addrs()?.next();
    let target = target.with_context(|| format!("no address for {}", args.target))?;
    let report = Engine::new(args, target)?.run()?;
    if args.stay {
        super::input_ended();
    }
    super::answer(&report)
}
