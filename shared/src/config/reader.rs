//! Reads values and remembers what is wrong with them.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::drain;
use crate::identity::TrustDomain;
use crate::telemetry::Format;

use super::setting::{self, Setting};
use super::source::Source;
use super::{Authority, Feed, Identity, Names, ParseError, Process, Servers, Tunnel};

/// Reads settings one by one; mistakes are kept and the default is used on.
pub struct Reader<'a, S> {
    source: &'a S,
    errors: Vec<ParseError>,
}

impl<'a, S: Source> Reader<'a, S> {
    /// A reader of `source`.
    pub fn new(source: &'a S) -> Self {
        Self { source, errors: Vec::new() }
    }

    /// All mistakes so far, in the order in which they were met.
    pub fn into_errors(self) -> Vec<ParseError> {
        self.errors
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.source.variable(name)
    }

    /// What was given first, and how.
    pub fn text(&self, setting: &Setting) -> Option<(String, String)> {
        if let Some(value) = self.source.flag(setting) {
            return Some((format!("--{}", setting.flag), value));
        }
        std::iter::once(&setting.variable)
            .chain(setting.istio)
            .find_map(|name| Some(((*name).to_owned(), self.source.variable(name)?)))
    }

    /// Remembers that a setting is needed and was not given.
    pub fn missing(&mut self, setting: &Setting, reason: &'static str) {
        let flag = format!("--{}", setting.flag);
        self.errors.push(ParseError::Missing { flag, variable: setting.variable, reason });
    }

    /// Remembers that two things exclude each other.
    pub fn conflict(&mut self, one: &str, other: &str, reason: &'static str) {
        self.errors.push(ParseError::Conflict {
            one: one.to_owned(),
            other: other.to_owned(),
            reason,
        });
    }

    /// Remembers that `value`, given by `origin`, cannot be used.
    pub fn wrong(&mut self, origin: &str, value: &str, reason: impl Display) {
        let (origin, value, reason) = (origin.to_owned(), value.to_owned(), reason.to_string());
        self.errors.push(ParseError::Value { origin, value, reason });
    }

    /// A path.
    pub fn path(&self, setting: &Setting) -> Option<PathBuf> {
        self.text(setting).map(|(_, path)| path.into())
    }

    /// The value of a variable, or `default`.
    pub fn variable_or(&self, name: &str, default: &str) -> Box<str> {
        self.source.variable(name).unwrap_or_else(|| default.to_owned()).into_boxed_str()
    }

    fn in_kubernetes(&self) -> bool {
        self.source.variable("KUBERNETES_SERVICE_HOST").is_some()
    }

    /// Where the picture of the mesh comes from; none when that was not said.
    pub fn feed(&mut self) -> Option<Feed> {
        self.feed_kind();
        let Some(mesh) = self.path(setting::MESH) else {
            self.missing(setting::MESH, "a directory of Kubernetes YAML says what the mesh is");
            return None;
        };
        Some(Feed::Dir { mesh })
    }

    /// How the process runs.
    pub fn process(&mut self) -> Process {
        Process {
            workers: self.workers(),
            state: self.path(setting::STATE).unwrap_or_else(|| "/var/lib/culvert".into()),
            drain: self.termination(drain::termination_deadline),
            log: self.variable_or("RUST_LOG", "info"),
            log_format: self.log_format(),
            istio_version: self.variable_or("ISTIO_META_ISTIO_VERSION", "unknown"),
        }
    }

    /// Names of this part of the mesh.
    pub fn names(&self) -> Names {
        Names {
            network: self.variable_or("NETWORK", ""),
            cluster: self.cluster(),
            cluster_domain: self.variable_or("CLUSTER_DOMAIN", "cluster.local"),
        }
    }

    /// Where the administrative servers listen; with `ipv6` on both families.
    pub fn servers(&mut self, ipv6: bool) -> Servers {
        let all: IpAddr =
            if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let stats = if self.in_kubernetes() { all } else { loopback };
        Servers {
            admin: self.loopback(setting::ADMIN, SocketAddr::new(loopback, 15000)),
            stats: self.address(setting::STATS, SocketAddr::new(stats, 15020)),
            ready: self.address(setting::READY, SocketAddr::new(all, 15021)),
        }
    }

    /// Limits of tunnels.
    pub fn tunnel(&mut self) -> Tunnel {
        const KIB: u32 = 1 << 10;
        const MIB: u32 = 1 << 20;
        let stream = self.number("HTTP2_STREAM_WINDOW_SIZE", 64 * KIB..=(1 << 31) - 1, 4 * MIB);
        let connection =
            self.number("HTTP2_CONNECTION_WINDOW_SIZE", 64 * KIB..=(1 << 31) - 1, 16 * MIB);
        if connection <= stream {
            self.conflict(
                "HTTP2_STREAM_WINDOW_SIZE",
                "HTTP2_CONNECTION_WINDOW_SIZE",
                "the window of the connection must be larger, or one unread stream stops all others",
            );
        }
        Tunnel {
            stream_window_bytes: stream,
            connection_window_bytes: connection,
            max_frame_bytes: self.number("HTTP2_FRAME_SIZE", 16 * KIB..=16 * MIB - 1, MIB),
            max_streams: self.number("POOL_MAX_STREAMS_PER_CONNECTION", 1..=10_000, 100),
            idle: self.duration("POOL_UNUSED_RELEASE_TIMEOUT").unwrap_or(Duration::from_secs(300)),
        }
    }

    fn feed_kind(&mut self) {
        if let Some((origin, value)) = self.text(setting::FEED)
            && value != "dir"
        {
            let reason = match value.as_str() {
                "kube" | "xds" => "is not part of this version, use dir",
                _ => "is not a feed, use dir",
            };
            self.wrong(&origin, &value, reason);
        }
    }

    /// Identities and who vouches for them; none when that is not complete.
    pub fn identity(&mut self) -> Option<Identity> {
        let trust_domain = match self.text(setting::TRUST_DOMAIN) {
            None => TrustDomain::default(),
            Some((origin, value)) => TrustDomain::new(&value).unwrap_or_else(|error| {
                self.wrong(&origin, &value, error);
                TrustDomain::default()
            }),
        };
        let authority = match (self.text(setting::CERTS), self.text(setting::CA_ADDR)) {
            (Some((one, _)), Some((other, _))) => {
                self.conflict(&one, &other, "certificates come from files or from an authority");
                return None;
            }
            (None, None) => {
                self.missing(
                    setting::CA_ADDR,
                    "pods need certificates: --ca ADDR --join-token FILE, or --certs DIR",
                );
                return None;
            }
            (Some((_, certs)), None) => Authority::Files { certs: certs.into() },
            (None, Some((origin, address))) => {
                let address = self.authority_address(&origin, &address);
                let Some(join_token) = self.path(setting::JOIN_TOKEN) else {
                    self.missing(
                        setting::JOIN_TOKEN,
                        "the authority asks for it; `ztunnel ca token NODE` prints one",
                    );
                    return None;
                };
                Authority::Ca { address: address?, join_token }
            }
        };
        Some(Identity { trust_domain, authority })
    }

    /// `host:port`; Istio's variable may begin with `https://`.
    fn authority_address(&mut self, origin: &str, value: &str) -> Option<Box<str>> {
        let address = value.strip_prefix("https://").unwrap_or(value).trim_end_matches('/');
        let port = address.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse::<u16>().ok()?;
            (!host.is_empty() && !address.contains('/')).then_some(port)
        });
        if port.is_none_or(|port| port == 0) {
            self.wrong(origin, value, "is not host:port");
            return None;
        }
        Some(address.into())
    }

    fn workers(&mut self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let Some((origin, value)) = self.text(setting::WORKERS) else { return cpus };
        let parsed = match value.strip_suffix('%') {
            Some(percent) => percent
                .parse::<usize>()
                .ok()
                .filter(|percent| (1..=100).contains(percent))
                .map(|percent| (cpus * percent).div_ceil(100)),
            None => value.parse::<usize>().ok().filter(|count| *count <= 1024),
        };
        match parsed {
            Some(0) => cpus,
            Some(count) => count,
            None => {
                self.wrong(
                    &origin,
                    &value,
                    "is not a number of threads, write 0 to 1024 or 1% to 100%",
                );
                cpus
            }
        }
    }

    /// A number of which 0 means no limit.
    pub fn count<T: FromStr>(&mut self, setting: &Setting, default: T) -> T {
        let Some((origin, value)) = self.text(setting) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.wrong(&origin, &value, "is not a number; 0 means no limit");
            default
        })
    }

    /// `true` or `false`; false when it was not said.
    pub fn switch(&mut self, setting: &Setting) -> bool {
        let Some((origin, value)) = self.text(setting) else { return false };
        value.parse().unwrap_or_else(|_| {
            self.wrong(&origin, &value, "is neither true nor false");
            false
        })
    }

    /// An address and a port.
    pub fn address(&mut self, setting: &Setting, default: SocketAddr) -> SocketAddr {
        let Some((origin, value)) = self.text(setting) else { return default };
        // `localhost:15000` is what people write; names are not asked for anywhere.
        let port = value.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let named = port.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        value.parse().ok().or(named).unwrap_or_else(|| {
            self.wrong(&origin, &value, "is not an address, write IP:PORT or [IPV6]:PORT");
            default
        })
    }

    /// An address on loopback and a port.
    pub fn loopback(&mut self, setting: &Setting, default: SocketAddr) -> SocketAddr {
        let address = self.address(setting, default);
        if !address.ip().to_canonical().is_loopback() {
            let (origin, value) = self.text(setting).unwrap_or_default();
            self.wrong(
                &origin,
                &value,
                "is not on loopback; from afar use the unix socket or `kubectl port-forward`",
            );
            return default;
        }
        address
    }

    fn cluster(&self) -> Box<str> {
        let default = self.variable_or("CLUSTER_ID", "Kubernetes");
        self.variable_or("ISTIO_META_CLUSTER_ID", &default)
    }

    fn log_format(&mut self) -> Format {
        match self.source.variable("LOG_FORMAT").as_deref() {
            None | Some("plain") => Format::Plain,
            Some("json") => Format::Json,
            Some(other) => {
                self.wrong("LOG_FORMAT", other, "is not a format, use plain or json");
                Format::Plain
            }
        }
    }

    /// The number in a variable.
    pub fn number<T>(&mut self, name: &'static str, range: RangeInclusive<T>, default: T) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let Some(value) = self.source.variable(name) else { return default };
        match value.parse::<T>() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                self.wrong(name, &value, format_args!("is not a number from {least} to {most}"));
                default
            }
        }
    }

    /// The duration in a variable.
    pub fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let value = self.source.variable(name)?;
        let parsed = parse_duration(&value);
        if parsed.is_none() {
            self.wrong(name, &value, "is not a duration, write 10s, 5m or 1h30m");
        }
        parsed
    }

    /// Whole seconds, as keepalive probes have them in the kernel (`MAX_TCP_KEEPIDLE`).
    pub fn seconds(&mut self, name: &'static str, default: Duration) -> Duration {
        const MOST: Duration = Duration::from_secs(32_767);
        let Some(time) = self.duration(name) else { return default };
        if (Duration::from_secs(1)..=MOST).contains(&time) && time.subsec_nanos() == 0 {
            return time;
        }
        let value = self.source.variable(name).unwrap_or_default();
        self.wrong(name, &value, "is not 1s to 32767s, in whole seconds");
        default
    }

    /// The `true` or `false` in a variable.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.source.variable(name)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.wrong(name, &value, "is neither true nor false");
        }
        parsed
    }

    fn termination(
        &mut self,
        rule: impl FnOnce(Option<Duration>, Option<Duration>) -> Duration,
    ) -> Duration {
        let explicit = self.duration("CONNECTION_TERMINATION_DEADLINE");
        let unset = u64::MAX;
        let grace = self.number("TERMINATION_GRACE_PERIOD_SECONDS", 0..=u64::MAX, unset);
        rule(explicit, (grace != unset).then(|| Duration::from_secs(grace)))
    }

    /// TLS 1.2 has no place here; who asks for it must not believe to have it.
    pub fn refuse_tls12(&mut self) {
        if self.flag("TLS12_ENABLED") == Some(true) {
            self.wrong("TLS12_ENABLED", "true", "cannot be: this program speaks TLS 1.3 only");
        }
    }
}

/// `10s`, `5m`, `1h30m`, `250ms`: numbers with units, largest first or not, added up.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total = total.checked_add(match &rest[..unit] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        })?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let parse = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(parse("1h30m"), Some(5_400_000));
        assert_eq!(parse("250ms"), Some(250));
        for wrong in ["", "10", "s", "1.5s", "10 s", "-1s", "99999999999999999999s"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
