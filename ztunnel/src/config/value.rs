//! Reads values and remembers what is wrong with them.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use shared::identity::TrustDomain;
use shared::telemetry::Format;

use super::settings::{self, Setting};
use super::source::Source;
use super::{Authority, Identity, Limits, ParseError, PodRef};

/// Reads settings one by one; mistakes are kept and the default is used on.
pub(super) struct Reader<'a, S> {
    source: &'a S,
    errors: Vec<ParseError>,
}

impl<'a, S: Source> Reader<'a, S> {
    pub(super) fn new(source: &'a S) -> Self {
        Self { source, errors: Vec::new() }
    }

    pub(super) fn into_errors(self) -> Vec<ParseError> {
        self.errors
    }

    /// What was given first, and how.
    pub(super) fn text(&self, setting: &Setting) -> Option<(String, String)> {
        if let Some(value) = self.source.flag(setting) {
            return Some((format!("--{}", setting.flag), value));
        }
        std::iter::once(&setting.variable)
            .chain(setting.istio)
            .find_map(|name| Some(((*name).to_owned(), self.source.variable(name)?)))
    }

    pub(super) fn missing(&mut self, setting: &Setting, reason: &'static str) {
        let flag = format!("--{}", setting.flag);
        self.errors.push(ParseError::Missing { flag, variable: setting.variable, reason });
    }

    pub(super) fn conflict(&mut self, one: &str, other: &str, reason: &'static str) {
        self.errors.push(ParseError::Conflict {
            one: one.to_owned(),
            other: other.to_owned(),
            reason,
        });
    }

    fn wrong(&mut self, origin: &str, value: &str, reason: impl Display) {
        let (origin, value, reason) = (origin.to_owned(), value.to_owned(), reason.to_string());
        self.errors.push(ParseError::Value { origin, value, reason });
    }

    pub(super) fn path(&self, setting: &Setting) -> Option<PathBuf> {
        self.text(setting).map(|(_, path)| path.into())
    }

    pub(super) fn variable_or(&self, name: &str, default: &str) -> Box<str> {
        self.source.variable(name).unwrap_or_else(|| default.to_owned()).into_boxed_str()
    }

    pub(super) fn in_kubernetes(&self) -> bool {
        self.source.variable("KUBERNETES_SERVICE_HOST").is_some()
    }

    pub(super) fn feed_kind(&mut self) {
        if let Some((origin, value)) = self.text(settings::FEED)
            && value != "dir"
        {
            let reason = match value.as_str() {
                "kube" | "xds" => "is not part of this version, use dir",
                _ => "is not a feed, use dir",
            };
            self.wrong(&origin, &value, reason);
        }
    }

    pub(super) fn dedicated(&mut self) -> Option<PodRef> {
        match self.source.variable("PROXY_MODE").as_deref() {
            None | Some("shared" | "dedicated") => {}
            Some(mode) => self.wrong("PROXY_MODE", mode, "is not a mode, use shared or dedicated"),
        }
        let Some((origin, value)) = self.text(settings::DEDICATED) else {
            if self.source.variable("PROXY_MODE").as_deref() == Some("dedicated") {
                self.missing(settings::DEDICATED, "PROXY_MODE=dedicated needs to know the pod");
            }
            return None;
        };
        // Istio's form has the service account as a third part, which the mesh knows better.
        let mut parts = value.splitn(3, '/');
        let (namespace, name) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if namespace.is_empty() || name.is_empty() {
            self.wrong(&origin, &value, "does not name a pod, write NAMESPACE/POD");
            return None;
        }
        Some(PodRef { namespace: namespace.into(), name: name.into() })
    }

    pub(super) fn identity(&mut self) -> Option<Identity> {
        let trust_domain = match self.text(settings::TRUST_DOMAIN) {
            None => TrustDomain::default(),
            Some((origin, value)) => TrustDomain::new(&value).unwrap_or_else(|error| {
                self.wrong(&origin, &value, error);
                TrustDomain::default()
            }),
        };
        let authority = match (self.text(settings::CERTS), self.text(settings::CA_ADDR)) {
            (Some((one, _)), Some((other, _))) => {
                self.conflict(&one, &other, "certificates come from files or from an authority");
                return None;
            }
            (None, None) => {
                self.missing(
                    settings::CA_ADDR,
                    "pods need certificates: --ca ADDR --join-token FILE, or --certs DIR",
                );
                return None;
            }
            (Some((_, certs)), None) => Authority::Files { certs: certs.into() },
            (None, Some((origin, address))) => {
                let address = self.authority_address(&origin, &address);
                let Some(join_token) = self.path(settings::JOIN_TOKEN) else {
                    self.missing(
                        settings::JOIN_TOKEN,
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

    pub(super) fn workers(&mut self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let Some((origin, value)) = self.text(settings::WORKERS) else { return cpus };
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

    /// What one pod may take of the node.
    pub(super) fn pod_limits(&mut self) -> Limits {
        let default = Limits::default();
        Limits {
            connections: self.count(settings::POD_CONNECTIONS, default.connections),
            per_second: self.count(settings::POD_CONNECTION_RATE, default.per_second),
        }
    }

    fn count<T: FromStr>(&mut self, setting: &Setting, default: T) -> T {
        let Some((origin, value)) = self.text(setting) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.wrong(&origin, &value, "is not a number; 0 means no limit");
            default
        })
    }

    pub(super) fn address(&mut self, setting: &Setting, default: SocketAddr) -> SocketAddr {
        let Some((origin, value)) = self.text(setting) else { return default };
        // `localhost:15000` is what people write; names are not asked for anywhere.
        let port = value.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let named = port.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        value.parse().ok().or(named).unwrap_or_else(|| {
            self.wrong(&origin, &value, "is not an address, write IP:PORT or [IPV6]:PORT");
            default
        })
    }

    pub(super) fn loopback(&mut self, setting: &Setting, default: SocketAddr) -> SocketAddr {
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

    pub(super) fn cluster(&self) -> Box<str> {
        let default = self.variable_or("CLUSTER_ID", "Kubernetes");
        self.variable_or("ISTIO_META_CLUSTER_ID", &default)
    }

    pub(super) fn log_format(&mut self) -> Format {
        match self.source.variable("LOG_FORMAT").as_deref() {
            None | Some("plain") => Format::Plain,
            Some("json") => Format::Json,
            Some(other) => {
                self.wrong("LOG_FORMAT", other, "is not a format, use plain or json");
                Format::Plain
            }
        }
    }

    pub(super) fn number<T>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<T>,
        default: T,
    ) -> T
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

    pub(super) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let value = self.source.variable(name)?;
        let parsed = parse_duration(&value);
        if parsed.is_none() {
            self.wrong(name, &value, "is not a duration, write 10s, 5m or 1h30m");
        }
        parsed
    }

    /// Whole seconds, as keepalive probes have them in the kernel (`MAX_TCP_KEEPIDLE`).
    pub(super) fn seconds(&mut self, name: &'static str, default: Duration) -> Duration {
        const MOST: Duration = Duration::from_secs(32_767);
        let Some(time) = self.duration(name) else { return default };
        if (Duration::from_secs(1)..=MOST).contains(&time) && time.subsec_nanos() == 0 {
            return time;
        }
        let value = self.source.variable(name).unwrap_or_default();
        self.wrong(name, &value, "is not 1s to 32767s, in whole seconds");
        default
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.source.variable(name)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.wrong(name, &value, "is neither true nor false");
        }
        parsed
    }

    pub(super) fn termination(
        &mut self,
        rule: impl FnOnce(Option<Duration>, Option<Duration>) -> Duration,
    ) -> Duration {
        let explicit = self.duration("CONNECTION_TERMINATION_DEADLINE");
        let unset = u64::MAX;
        let grace = self.number("TERMINATION_GRACE_PERIOD_SECONDS", 0..=u64::MAX, unset);
        rule(explicit, (grace != unset).then(|| Duration::from_secs(grace)))
    }

    /// TLS 1.2 has no place here; who asks for it must not believe to have it.
    pub(super) fn refuse_tls12(&mut self) {
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
