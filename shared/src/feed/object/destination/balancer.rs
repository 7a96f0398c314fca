//! `loadBalancer`.

use http::HeaderName;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::destination::locality;
use crate::feed::object::destination::values::{any_time, number, share, time};
use crate::feed::verdict::Cause;
use crate::mesh::{Balancer, HashKey, HashTable, LocalityPreference, Share, Warmup};

/// Istio: places of a ring.
const RING: u32 = 1_024;
/// Places that a ring may have here; Envoy's bound of 8,388,608 costs 100 MiB per service.
const LARGEST_RING: u32 = 65_536;
/// Envoy: places of a Maglev table.
const TABLE: u32 = 65_537;
/// Envoy's bound of them.
const LARGEST_TABLE: u32 = 5_000_011;
/// Istio: the share that a new endpoint starts with.
const LEAST_WARMTH: f64 = 10.0;

/// How endpoints are chosen, and which are preferred; nothing when it says neither.
pub(super) fn read(
    fields: &Fields<'_>,
    intern: &mut Interner,
) -> Option<(Balancer, Option<LocalityPreference>)> {
    let locality = fields.fields("localityLbSetting").map(|one| locality::read(&one, intern));
    let balancer = balancer(fields, intern);
    (balancer.is_some() || locality.is_some()).then(|| (balancer.unwrap_or_default(), locality))
}

fn balancer(fields: &Fields<'_>, intern: &mut Interner) -> Option<Balancer> {
    let warmup = warmup(fields);
    let hash = fields.fields("consistentHash");
    let simple = fields.text("simple");
    if let Some(hash) = hash {
        if simple.is_some() {
            fields.report("simple", Cause::Invalid, "cannot stand beside consistentHash");
        }
        if warmup.is_some() {
            fields.report("warmup", Cause::Unsupported, "does not count for a consistent hash");
        }
        return consistent_hash(&hash, intern);
    }
    match simple {
        None if warmup.is_none() => None,
        None | Some("UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN") => {
            Some(Balancer::LeastRequest(warmup))
        }
        Some("ROUND_ROBIN") => Some(Balancer::RoundRobin(warmup)),
        Some("RANDOM") => {
            if warmup.is_some() {
                fields.report("warmup", Cause::Unsupported, "does not count for RANDOM");
            }
            Some(Balancer::Random)
        }
        Some("PASSTHROUGH") => {
            let reason = "a waypoint is asked for the service, so there is no address to pass on; \
                          endpoints are chosen as with LEAST_REQUEST";
            fields.report("simple", Cause::Unsupported, reason);
            None
        }
        Some(other) => {
            fields.report("simple", Cause::Invalid, format_args!("\"{other}\" is no algorithm"));
            None
        }
    }
}

fn warmup(fields: &Fields<'_>) -> Option<Warmup> {
    let old = time(fields, "warmupDurationSecs");
    let least = Share::percent(LEAST_WARMTH).unwrap_or(Share::WHOLE);
    let Some(warmup) = fields.fields("warmup") else {
        return old.map(|duration| Warmup { duration, least, aggression: 1_000 });
    };
    if old.is_some() {
        fields.report("warmupDurationSecs", Cause::Shadowed, "warmup comes before it");
    }
    let aggression = warmup.number::<f64>("aggression").unwrap_or(1.0);
    // Istio: at least 1.
    if !(1.0..=1_000.0).contains(&aggression) {
        warmup.report("aggression", Cause::Invalid, "must be 1 to 1000");
        return None;
    }
    let Some(duration) = time(&warmup, "duration") else {
        warmup.report("duration", Cause::Invalid, "a warm-up needs a duration");
        return None;
    };
    Some(Warmup {
        duration,
        least: share(&warmup, "minimumPercent").unwrap_or(least),
        aggression: (aggression * 1_000.0).round() as u32,
    })
}

fn consistent_hash(fields: &Fields<'_>, intern: &mut Interner) -> Option<Balancer> {
    let keys = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
    if keys.iter().filter(|name| fields.has(name)).count() > 1 {
        fields.report("", Cause::Invalid, "there may be one key: a header, a cookie, …");
    }
    let key = key(fields, intern);
    let table = table(fields);
    Some(Balancer::Hash { key: key?, table: table? })
}

fn key(fields: &Fields<'_>, intern: &mut Interner) -> Option<HashKey> {
    if let Some(cookie) = fields.fields("httpCookie") {
        let reason = "cookies that are made are HttpOnly; no other attribute is written";
        cookie.unsupported(&["attributes"], reason);
        let name = cookie.text("name").unwrap_or("");
        let ttl = any_time(&cookie, "ttl");
        let path = cookie.text("path").unwrap_or("");
        if name.len() > 128 || HeaderName::try_from(name).is_err() {
            let reason = "must be 1 to 128 letters that a cookie's name can have";
            cookie.report("name", Cause::Invalid, reason);
            return None;
        }
        if path.len() > 1_024 || !path.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b';') {
            cookie.report("path", Cause::Invalid, "must be a path that a cookie can have");
            return None;
        }
        return Some(HashKey::Cookie { name: intern.text(name), path: intern.text(path), ttl });
    }
    if let Some(text) = fields.text("httpHeaderName") {
        let name = HeaderName::try_from(text);
        if name.is_err() {
            fields.report("httpHeaderName", Cause::Invalid, "is no name of a header");
        }
        return name.ok().map(HashKey::Header);
    }
    if let Some(text) = fields.text("httpQueryParameterName") {
        if text.is_empty() || text.len() > 256 {
            fields.report("httpQueryParameterName", Cause::Invalid, "must be 1 to 256 letters");
        }
        return Some(HashKey::Query(intern.text(text)));
    }
    if fields.flag("useSourceIp") == Some(true) {
        return Some(HashKey::SourceIp);
    }
    fields.report(
        "",
        Cause::Invalid,
        "needs a key: a header, a cookie, a parameter or useSourceIp",
    );
    None
}

fn table(fields: &Fields<'_>) -> Option<HashTable> {
    let old = number(fields, "minimumRingSize", u32::MAX);
    let (ring, maglev) = (fields.fields("ringHash"), fields.fields("maglev"));
    if ring.is_some() && maglev.is_some() {
        fields.report("maglev", Cause::Invalid, "cannot stand beside ringHash");
    }
    if let Some(maglev) = maglev {
        let size = number(&maglev, "tableSize", LARGEST_TABLE).unwrap_or(TABLE);
        if !is_prime(size) {
            let reason = format!("must be a prime number up to {LARGEST_TABLE}");
            maglev.report("tableSize", Cause::Invalid, reason);
            return None;
        }
        return Some(HashTable::Maglev(size));
    }
    let named = ring.as_ref().unwrap_or(fields);
    let own = ring.as_ref().and_then(|ring| number(ring, "minimumRingSize", u32::MAX));
    let size = own.or(old).unwrap_or(RING);
    if size > LARGEST_RING {
        let reason = format!("a ring has at most {LARGEST_RING} places here, so it gets those");
        named.report("minimumRingSize", Cause::Unsupported, reason);
    }
    Some(HashTable::Ring(size.clamp(1, LARGEST_RING)))
}

/// By division; `number` is at most [`LARGEST_TABLE`].
fn is_prime(number: u32) -> bool {
    let mut divisors = (2..).take_while(|divisor: &u32| divisor * divisor <= number);
    number >= 2 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_apart() {
        for prime in [2, 3, 17, 65_537, LARGEST_TABLE] {
            assert!(is_prime(prime), "{prime}");
        }
        for other in [0, 1, 4, 65_535, 65_536, 5_000_010] {
            assert!(!is_prime(other), "{other}");
        }
    }
}
