//! An open-loop HTTP/1.1 load generator. Requests have times at which they are due; latency counts
//! from then, not from when they could be sent, so a stall is seen in full (no coordinated omission).
//! With rate 0 it sends as fast as answers come (closed loop), for maxima.

mod request;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use request::Connection;

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
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Requests that got a whole answer with status 200.
    pub ok: u64,
    /// Requests that did not, by kind.
    pub errors: BTreeMap<String, u64>,
    /// When the first and the last error were seen, by the machine's clock.
    pub errors_at_ms: Option<(u64, u64)>,
    /// Answers by the name of the server.
    pub servers: BTreeMap<String, u64>,
    /// Seconds that were counted.
    pub seconds: f64,
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
        self.ok as f64 / self.seconds.max(0.001)
    }
}

struct Tally {
    latency: Histogram<u64>,
    report: Report,
    left: u64,
}

impl Tally {
    fn take(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    fn fail(&mut self, kind: String) {
        let now = super::now_ms();
        let first = self.report.errors_at_ms.map_or(now, |(first, _)| first);
        self.report.errors_at_ms = Some((first, now));
        *self.report.errors.entry(kind).or_default() += 1;
    }
}

/// Runs the load and prints the report.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let target = tokio::net::lookup_host(&args.target).await?.next();
    let target = target.ok_or_else(|| anyhow::anyhow!("no address for {}", args.target))?;
    let limit = if args.requests == 0 { u64::MAX } else { args.requests };
    let latency = Histogram::new_with_bounds(1, 120_000_000, 3)?;
    let tally = Tally { latency, report: Report::default(), left: limit.saturating_add(1) };
    let tally = Rc::new(RefCell::new(tally));
    let start = Instant::now();
    let count_from = start + Duration::from_secs_f64(args.warm_up);
    let end = (args.seconds > 0.0).then(|| count_from + Duration::from_secs_f64(args.seconds));
    let mut senders = tokio::task::JoinSet::new();
    for number in 0..args.connections {
        let sender = Sender { args: args.clone(), target, number, start, count_from, end };
        senders.spawn_local(sender.run(Rc::clone(&tally)));
    }
    let asked = async {
        if args.seconds > 0.0 || args.requests > 0 {
            std::future::pending().await
        } else {
            super::asked_to_end().await;
        }
    };
    tokio::select! {
        () = async { while senders.join_next().await.is_some() {} } => {}
        () = asked => senders.abort_all(),
    }
    let mut tally = tally.borrow_mut();
    let at = |quantile| tally.latency.value_at_quantile(quantile);
    let (p50_us, p90_us, p99_us, p999_us) = (at(0.5), at(0.9), at(0.99), at(0.999));
    let max_us = tally.latency.max();
    let seconds = Instant::now().duration_since(count_from).as_secs_f64();
    let mut report = std::mem::take(&mut tally.report);
    report = Report { seconds, p50_us, p90_us, p99_us, p999_us, max_us, ..report };
    super::answer(&report)
}

struct Sender {
    args: Args,
    target: SocketAddr,
    number: u32,
    start: Instant,
    count_from: Instant,
    end: Option<Instant>,
}

impl Sender {
    async fn run(self, tally: Rc<RefCell<Tally>>) {
        let mut connection = None;
        let interval = match self.args.rate {
            0 => None,
            rate => Some(Duration::from_secs(1) * self.args.connections / rate),
        };
        // Connections start evenly within one interval.
        let offset = interval.map(|interval| interval * self.number / self.args.connections);
        let mut due = self.start + offset.unwrap_or_default();
        while self.end.is_none_or(|end| due < end) && tally.borrow_mut().take() {
            match interval {
                Some(_) => tokio::time::sleep_until(due).await,
                None => due = Instant::now(),
            }
            let result = self.one(&mut connection).await;
            let counted = due >= self.count_from;
            match result {
                Ok(server) if counted => {
                    let took = due.elapsed().as_micros() as u64;
                    let mut tally = tally.borrow_mut();
                    let _ = tally.latency.record(took.max(1));
                    tally.report.ok += 1;
                    match tally.report.servers.get_mut(&server) {
                        Some(count) => *count += 1,
                        None => drop(tally.report.servers.insert(server, 1)),
                    }
                }
                Ok(_) => {}
                Err(kind) => {
                    connection = None;
                    tally.borrow_mut().fail(kind);
                    if interval.is_none() {
                        // A refused connection must not become a busy loop.
                        tokio::time::sleep_until(Instant::now() + Duration::from_millis(5)).await;
                    }
                }
            }
            due += interval.unwrap_or_default();
        }
    }

    async fn one(&self, kept: &mut Option<Connection>) -> Result<String, String> {
        let limit = Duration::from_secs(10);
        let work = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(self.target, &self.args.target).await?,
            };
            let server = connection.get(&self.args.path).await?;
            if self.args.fresh {
                connection.close().await?;
            } else {
                *kept = Some(connection);
            }
            Ok(server)
        };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err("no answer within 10 s".to_owned()),
        }
    }
}
