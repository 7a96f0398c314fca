//! `timeouts`, `retry` and `sessionPersistence` of a rule.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::feed::fields::Fields;
use crate::feed::object::Head;
use crate::feed::verdict::Cause;
use crate::mesh::{Retry, Session, SessionKind, Timeouts};

/// Istio: attempts after the first when a route does not say how many.
const ATTEMPTS: u32 = 2;

/// `timeouts`.
pub(super) fn timeouts(rule: &Fields<'_>) -> Timeouts {
    let Some(fields) = rule.fields("timeouts") else { return Timeouts::default() };
    let limit = |name: &str| time(&fields, name).filter(|limit| !limit.is_zero());
    let timeouts = Timeouts { request: limit("request"), backend_request: limit("backendRequest") };
    if let (Some(request), Some(one)) = (timeouts.request, timeouts.backend_request)
        && one > request
    {
        let reason = "an attempt cannot take longer than the request";
        fields.report("backendRequest", Cause::Invalid, reason);
    }
    timeouts
}

/// Reads `retry` of the rules of one route.
pub(in crate::feed::object) struct RetryReader {
    delivered: bool,
    is_remarked: bool,
}

impl RetryReader {
    pub(in crate::feed::object) fn new(head: &Head) -> Self {
        let delivered = head.is_annotated("culvert.dev/retry-delivered");
        Self { delivered, is_remarked: delivered }
    }

    /// Whether delivered requests are repeated, too.
    pub(in crate::feed::object) fn delivered(&self) -> bool {
        self.delivered
    }

    /// Remarks once what is not repeated, unless the route is annotated.
    pub(in crate::feed::object) fn remark(&mut self, fields: &Fields<'_>, name: &str) {
        if !std::mem::replace(&mut self.is_remarked, true) {
            let reason = "only undelivered or idempotent requests are repeated; annotate \
                          culvert.dev/retry-delivered: \"true\" to repeat delivered ones";
            fields.report(name, Cause::Default, reason);
        }
    }

    /// `retry`.
    pub(super) fn read(&mut self, rule: &Fields<'_>) -> Option<Arc<Retry>> {
        let fields = rule.fields("retry")?;
        let codes = fields.numbers("codes");
        if codes.iter().any(|code| !(400..600).contains(code)) {
            fields.report("codes", Cause::Invalid, "must be statuses of 400 to 599");
        }
        if codes.len() > 16 {
            fields.report("codes", Cause::Invalid, "has more than 16 entries");
        }
        self.remark(rule, "retry");
        Some(Arc::new(Retry {
            codes: codes.into(),
            server_errors: false,
            grpc: Retry::GRPC.into(),
            broken: true,
            attempts: fields.number("attempts").unwrap_or(ATTEMPTS),
            backoff: time(&fields, "backoff"),
            delivered: self.delivered,
        }))
    }
}

/// `sessionPersistence` of the rule at `at`.
pub(super) fn session(rule: &Fields<'_>, head: &Head, at: usize) -> Option<Arc<Session>> {
    let fields = rule.fields("sessionPersistence")?;
    let absolute_timeout = time(&fields, "absoluteTimeout");
    let idle_timeout = time(&fields, "idleTimeout");
    let name = fields.text("sessionName");
    let token = name.map(HeaderName::try_from);
    if matches!(token, Some(Err(_))) || name.is_some_and(|name| name.len() > 128) {
        let reason = "must be 1 to 128 letters that a header name can have";
        fields.report("sessionName", Cause::Invalid, reason);
    }
    let cookie = fields.fields("cookieConfig");
    let permanent = cookie.as_ref().is_some_and(is_permanent);
    if permanent && absolute_timeout.is_none() {
        let reason = "a permanent cookie needs an absoluteTimeout";
        fields.report("absoluteTimeout", Cause::Invalid, reason);
    }
    let kind = match fields.text("type").unwrap_or("Cookie") {
        "Cookie" => {
            let name = name.map_or_else(|| generated(head, at), Arc::from);
            SessionKind::Cookie { name, permanent }
        }
        "Header" => {
            if cookie.is_some() {
                fields.report("cookieConfig", Cause::Invalid, "is for cookies");
            }
            let Some(Ok(name)) = token else {
                fields.report("sessionName", Cause::Invalid, "a header needs a name");
                return None;
            };
            SessionKind::Header(name)
        }
        other => {
            let reason = format!("\"{other}\" is neither Cookie nor Header");
            fields.report("type", Cause::Invalid, reason);
            return None;
        }
    };
    Some(Arc::new(Session { kind, absolute_timeout, idle_timeout }))
}

fn is_permanent(cookie: &Fields<'_>) -> bool {
    match cookie.text("lifetimeType") {
        None | Some("Session") => false,
        Some("Permanent") => true,
        Some(other) => {
            let reason = format!("\"{other}\" is neither Session nor Permanent");
            cookie.report("lifetimeType", Cause::Invalid, reason);
            false
        }
    }
}

/// A name that all waypoints make alike. 64 bits of FNV-1a over a text that no other rule has.
fn generated(head: &Head, at: usize) -> Arc<str> {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let text = format!("{}/{at}", head.key);
    format!("culvert-{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step)).into()
}

/// A time as Gateway API writes it.
pub(in crate::feed::object) fn time(fields: &Fields<'_>, name: &str) -> Option<Duration> {
    let text = fields.text(name)?;
    let parsed = duration(text);
    if parsed.is_none() {
        let reason = format!("\"{text}\" is no duration; write it as 1h30m, 10s or 250ms");
        fields.report(name, Cause::Invalid, reason);
    }
    parsed
}

/// GEP-2257: `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, Duration::ZERO);
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits).filter(|_| (1..=5).contains(&digits))?.parse().ok()?;
        rest = &rest[digits..];
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let (unit, millis) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += Duration::from_millis(number * millis);
        rest = &rest[unit.len()..];
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gateway_api() {
        for (text, millis) in [
            ("0s", 0),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1s5ms", 1_005),
            ("1h1m1s1ms", 3_661_001),
            ("99999h", 99_999 * 3_600_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "s", "1.5s", "-1s", "100000s", "1s1s1s1s1s", "1d", "1s ", "1µs"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
