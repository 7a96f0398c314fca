//! What the headers of a tunnel request say about its caller.
//!
//! Each line: a letter for the header, then its value.
//! Laws: what was read can be written, and reads the same; every value is short and can be a label.

use http::{HeaderMap, HeaderName, HeaderValue};
use shared::headers::{
    BAGGAGE, Baggage, CAUSE, FORWARDED, FORWARDED_NETWORK, Forwarded, TRACEPARENT, TraceParent,
    cause,
};
use shared::identity::{SpiffeId, TrustDomain};
use shared::mesh::{Locality, Workload, sample};

use crate::planted;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some((&letter, value)) = line.split_first() else { continue };
        let Some(name) = name(letter) else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(name, value);
    }
    baggage(&headers);
    forwarded(&headers);
    if let Some(trace) = TraceParent::parse(&headers) {
        let again = HeaderMap::from_iter([(TRACEPARENT, trace.header())]);
        assert_eq!(TraceParent::parse(&again), Some(trace));
        let id = trace.trace_id().to_string();
        assert!(id.len() == 32 && id.bytes().any(|byte| byte != b'0'), "{id}");
    }
    if let Some(cause) = cause(&headers) {
        assert!(!cause.is_empty() && cause.len() <= 64);
        assert!(cause.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_')));
    }
}

fn name(letter: u8) -> Option<HeaderName> {
    Some(match letter {
        b'b' => BAGGAGE,
        b'f' => FORWARDED,
        b't' => TRACEPARENT,
        b'c' => CAUSE,
        b'n' => FORWARDED_NETWORK,
        _ => return None,
    })
}

fn baggage(headers: &HeaderMap) {
    let read = Baggage::parse(headers);
    let Baggage { cluster, namespace, workload, service, version, region, zone } = &read;
    for value in [cluster, namespace, workload, service, version, region, zone] {
        let Some(value) = value else { continue };
        assert!(!value.is_empty() && value.len() <= 253, "{value}");
        assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{value}");
    }
    let text = |value: &Option<Box<str>>| value.as_deref().unwrap_or_default().into();
    let namespace = namespace.as_deref().unwrap_or("team");
    let identity = SpiffeId::new(TrustDomain::default(), namespace, "web");
    let Ok(identity) = identity else { return };
    let described = Workload {
        identity,
        cluster_id: text(cluster),
        workload_name: text(workload),
        canonical_name: text(service),
        canonical_revision: text(version),
        locality: Locality { region: text(region), zone: text(zone), subzone: "".into() }.into(),
        ..sample::workload("web", "team")
    };
    let again = HeaderMap::from_iter([(BAGGAGE, Baggage::describe(&described))]);
    let expected = Baggage { namespace: Some(namespace.into()), ..read.clone() };
    assert_eq!(Baggage::parse(&again), expected);
    planted(read.version.is_some() && headers.get_all(BAGGAGE).iter().count() > 2);
}

fn forwarded(headers: &HeaderMap) {
    let read = Forwarded::parse(headers);
    if let Some(host) = &read.host {
        assert!(!host.is_empty() && host.len() <= 253, "{host}");
    }
    if let Some(client) = read.client {
        let again = Forwarded::describe(client, read.host.as_deref());
        let again = HeaderMap::from_iter([(FORWARDED, again)]);
        assert_eq!(Forwarded::parse(&again), read);
    }
}
