//! The access log: one line per connection, with a stable order of keys.
//!
//! Keys and messages are Istio ztunnel's, then ours: `cause` (the name in `docs/causes.md`),
//! `connection` (the same at both ends) and `handover`. Absent values are left out. The level filter
//! applies to the target `access`.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

use super::line::{Format, Line, Value};
use super::sink::Sink;

const TARGET: &str = "access";

/// Writes the access log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    sink: Sink,
    format: Format,
}

/// From whose point of view a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A local application opened it.
    Outbound,
    /// It reaches a local application.
    Inbound,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side<'a> {
    /// The TCP peer; for the destination, the one that was really dialled.
    pub address: Option<SocketAddr>,
    /// Name of the workload.
    pub workload: Option<&'a str>,
    /// Its namespace.
    pub namespace: Option<&'a str>,
    /// Its identity; only where mutual TLS proved it.
    pub identity: Option<&'a str>,
    /// Its cluster.
    pub cluster: Option<&'a str>,
}

/// A connection, as it is told.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Point of view.
    pub direction: Direction,
    /// Who opened it.
    pub source: Side<'a>,
    /// Where it went.
    pub destination: Side<'a>,
    /// CONNECT target, when tunnelled.
    pub hbone_address: Option<&'a dyn Display>,
    /// Host name of the service that was meant.
    pub service: Option<&'a str>,
    /// Bytes from the local pod's point of view; `None` before the connection existed.
    pub bytes: Option<Bytes>,
    /// How long it lasted; `None` before the connection existed.
    pub duration: Option<Duration>,
    /// The id that both ends log.
    pub connection: Option<&'a str>,
    /// Both ends are pods of this process, and no tunnel is between them.
    pub handover: bool,
    /// How it ended.
    pub end: End<'a>,
}

/// Bytes of a connection, from the local pod's point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Written by the local application.
    pub sent: u64,
    /// Read by the local application.
    pub received: u64,
}

/// How a connection ended, or that it began.
#[derive(Clone, Copy)]
pub enum End<'a> {
    /// It has begun (level debug).
    Opened,
    /// Both sides finished (info).
    Complete,
    /// It failed after it was begun (error).
    Failed(Failure<'a>),
    /// It was turned away before it was begun (warn).
    Refused(Failure<'a>),
}

/// Why a connection failed.
#[derive(Clone, Copy)]
pub struct Failure<'a> {
    /// Stable name, `UPPER_SNAKE`.
    pub cause: &'a str,
    /// In words.
    pub error: &'a dyn Display,
}

/// A request, as it is told.
#[derive(Clone, Copy)]
pub struct RequestRecord<'a> {
    /// Who asked.
    pub source: Side<'a>,
    /// Who answered; nobody when the answer is ours.
    pub destination: Side<'a>,
    /// Host name of the service that was meant.
    pub service: Option<&'a str>,
    /// `GET`.
    pub method: &'a str,
    /// Path and query, as the client sent them.
    pub path: &'a str,
    /// `HTTP/1.1`.
    pub protocol: &'a dyn Display,
    /// `:authority` or Host.
    pub host: Option<&'a str>,
    /// Status code; 0 when there was none.
    pub status: u16,
    /// Envoy's short word for what went wrong.
    pub flags: Option<&'a str>,
    /// Namespace and name of the route that matched.
    pub route: Option<&'a str>,
    /// `x-request-id`.
    pub request_id: Option<&'a str>,
    /// The audit policies that it matches.
    pub audited: Option<&'a str>,
    /// How often endpoints were tried.
    pub attempts: u32,
    /// Bodies: `sent` is the response's.
    pub bytes: Bytes,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
    /// The id of the tunnel that it came through.
    pub connection: Option<&'a str>,
    /// Why it failed.
    pub failure: Option<Failure<'a>>,
}

impl Log {
    /// Writes one line about a request, unless the level of the target `access` is higher: info, or
    /// warn when it failed in the mesh.
    pub fn request(&self, record: &RequestRecord<'_>) {
        let (level, enabled) = match record.failure {
            None => (Level::INFO, tracing::enabled!(target: TARGET, Level::INFO)),
            Some(_) => (Level::WARN, tracing::enabled!(target: TARGET, Level::WARN)),
        };
        if enabled {
            self.sink.line(render_request(self.format, level, record));
        }
    }

    /// Lines go to `sink` in this form.
    #[must_use]
    pub fn new(sink: Sink, format: Format) -> Self {
        Self { sink, format }
    }

    /// Writes one line, unless the level of the target `access` is higher. Waits while the queue is full.
    pub fn write(&self, record: &Record<'_>) {
        let (level, enabled, message) = match record.end {
            End::Opened => {
                (Level::DEBUG, tracing::enabled!(target: TARGET, Level::DEBUG), "connection opened")
            }
            End::Complete => {
                (Level::INFO, tracing::enabled!(target: TARGET, Level::INFO), "connection complete")
            }
            End::Failed(_) => (
                Level::ERROR,
                tracing::enabled!(target: TARGET, Level::ERROR),
                "connection complete",
            ),
            End::Refused(_) => {
                (Level::WARN, tracing::enabled!(target: TARGET, Level::WARN), "connection failed")
            }
        };
        if enabled {
            self.sink.line(render(self.format, level, message, record));
        }
    }

    /// Waits until the lines are written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.sink.flush(patience);
    }
}

fn render_request(format: Format, level: Level, record: &RequestRecord<'_>) -> String {
    let mut line = Line::begin(format, level, TARGET, "request complete");
    side(&mut line, "src", &record.source);
    side(&mut line, "dst", &record.destination);
    line.optional("dst.service", record.service);
    line.optional("method", Some(record.method));
    line.optional("path", Some(record.path));
    line.field("protocol", &Value::Bare(record.protocol));
    line.optional("host", record.host);
    line.field("status", &Value::Number(record.status.into()));
    line.optional("flags", record.flags);
    line.optional("route", record.route);
    line.optional("request_id", record.request_id);
    line.optional("audited", record.audited);
    line.field("attempts", &Value::Number(record.attempts.into()));
    line.field("bytes_sent", &Value::Number(record.bytes.sent));
    line.field("bytes_recv", &Value::Number(record.bytes.received));
    line.field("duration", &Value::Text(&format!("{}ms", record.duration.as_millis())));
    if let Some(failure) = record.failure {
        line.field("error", &Value::Text(&failure.error.to_string()));
        line.field("cause", &Value::Text(failure.cause));
    }
    line.optional("connection", record.connection);
    line.end()
}

fn side(line: &mut Line, end: &str, side: &Side<'_>) {
    let Side { address, workload, namespace, identity, cluster } = side;
    if let Some(address) = address {
        line.field(&format!("{end}.addr"), &Value::Address(*address));
    }
    line.optional(&format!("{end}.workload"), *workload);
    line.optional(&format!("{end}.namespace"), *namespace);
    line.optional(&format!("{end}.identity"), *identity);
    line.optional(&format!("{end}.cluster"), *cluster);
}

fn render(format: Format, level: Level, message: &str, record: &Record<'_>) -> String {
    let mut line = Line::begin(format, level, TARGET, message);
    let Side { address, workload, namespace, identity, cluster } = record.source;
    if let Some(address) = address {
        line.field("src.addr", &Value::Address(address));
    }
    line.optional("src.workload", workload);
    line.optional("src.namespace", namespace);
    line.optional("src.identity", identity);
    line.optional("src.cluster", cluster);
    let Side { address, workload, namespace, identity, cluster } = record.destination;
    if let Some(address) = address {
        line.field("dst.addr", &Value::Address(address));
    }
    if let Some(address) = record.hbone_address {
        line.field("dst.hbone_addr", &Value::Bare(address));
    }
    line.optional("dst.service", record.service);
    line.optional("dst.workload", workload);
    line.optional("dst.namespace", namespace);
    line.optional("dst.identity", identity);
    line.optional("dst.cluster", cluster);
    line.optional(
        "direction",
        Some(match record.direction {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }),
    );
    if let Some(bytes) = record.bytes {
        line.field("bytes_sent", &Value::Number(bytes.sent));
        line.field("bytes_recv", &Value::Number(bytes.received));
    }
    if let Some(duration) = record.duration {
        line.field("duration", &Value::Text(&format!("{}ms", duration.as_millis())));
    }
    if let End::Failed(failure) | End::Refused(failure) = record.end {
        line.field("error", &Value::Text(&failure.error.to_string()));
        line.field("cause", &Value::Text(failure.cause));
    }
    line.optional("connection", record.connection);
    if record.handover {
        line.field("handover", &Value::Flag(true));
    }
    line.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(end: End<'_>) -> Record<'_> {
        Record {
            direction: Direction::Outbound,
            source: Side {
                address: Some(([10, 0, 0, 1], 4000).into()),
                workload: Some("client"),
                namespace: Some("a"),
                identity: Some("spiffe://cluster.local/ns/a/sa/client"),
                cluster: Some("Kubernetes"),
            },
            destination: Side {
                address: Some(([10, 0, 0, 2], 15008).into()),
                workload: Some("server-1"),
                ..Side::default()
            },
            hbone_address: Some(&"10.0.0.2:80"),
            service: Some("server.a.svc.cluster.local"),
            bytes: Some(Bytes { sent: 11, received: 22 }),
            duration: Some(Duration::from_micros(3999)),
            connection: Some("7f"),
            handover: true,
            end,
        }
    }

    #[test]
    fn keys_come_in_the_published_order() {
        let failure = Failure { cause: "POLICY_DENIED", error: &"denied by a/b" };
        let line = render(Format::Plain, Level::ERROR, "m", &record(End::Failed(failure)));
        let fields = line.trim_end().rsplit_once('\t').unwrap().1;
        assert_eq!(
            fields,
            "src.addr=10.0.0.1:4000 src.workload=\"client\" src.namespace=\"a\" \
             src.identity=\"spiffe://cluster.local/ns/a/sa/client\" src.cluster=\"Kubernetes\" \
             dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:80 \
             dst.service=\"server.a.svc.cluster.local\" dst.workload=\"server-1\" \
             direction=\"outbound\" bytes_sent=11 bytes_recv=22 duration=\"3ms\" \
             error=\"denied by a/b\" cause=\"POLICY_DENIED\" connection=\"7f\" handover=true"
        );
    }

    #[test]
    fn a_refused_connection_carries_only_what_is_known() {
        let side = |port| Side { address: Some(([10, 0, 0, 1], port).into()), ..Side::default() };
        let refused = Record {
            source: side(1),
            destination: side(2),
            hbone_address: None,
            service: None,
            bytes: None,
            duration: None,
            connection: None,
            handover: false,
            ..record(End::Refused(Failure { cause: "X", error: &"no" }))
        };
        let line = render(Format::Json, Level::WARN, "connection failed", &refused);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        let keys: Vec<&String> = parsed.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 9, "{keys:?}");
        assert_eq!(parsed["dst.addr"], "10.0.0.1:2");
    }
}
