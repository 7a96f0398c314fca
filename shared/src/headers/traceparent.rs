//! `traceparent`: the id under which both ends log one connection (W3C Trace Context §3.2).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header's name.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Trace and span of one connection. Random, not secret, never trusted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: u128,
    span: u64,
}

impl TraceParent {
    /// A new random one; neither part is zero, which the format forbids.
    pub fn random() -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..) }
    }

    /// The first line of `headers`, if it is version 00 and well-formed.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let line = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut pieces = line.split('-');
        let (version, trace, span) = (pieces.next()?, pieces.next()?, pieces.next()?);
        let hex = |text: &str, digits: usize| {
            text.len() == digits
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if version != "00" || !hex(trace, 32) || !hex(span, 16) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        Some(Self { trace, span })
    }

    /// The header value; the flags say "not sampled".
    pub fn header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("hex digits and dashes")
    }

    /// The 32 digits that both ends write into their logs.
    pub fn trace_id(self) -> impl fmt::Display {
        struct Hex(u128);
        impl fmt::Display for Hex {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        Hex(self.trace)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-00", self.trace, self.span)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints() {
        let one = TraceParent::random();
        let headers = HeaderMap::from_iter([(TRACEPARENT, one.header())]);
        assert_eq!(TraceParent::parse(&headers), Some(one));
        assert!(one.to_string().contains(&one.trace_id().to_string()));
    }

    #[test]
    fn malformed_ids_are_absent() {
        for line in [
            "",
            "00-0-0-00",
            "00-00000000000000000000000000000000-0000000000000001-00",
            "01-00000000000000000000000000000001-0000000000000001-00",
            "00-0000000000000000000000000000000+1-0000000000000001-00",
        ] {
            let value = HeaderValue::from_str(line).unwrap();
            assert_eq!(TraceParent::parse(&HeaderMap::from_iter([(TRACEPARENT, value)])), None);
        }
    }
}
