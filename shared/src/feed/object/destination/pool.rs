//! `connectionPool` and `retryBudget`.

use crate::feed::fields::Fields;
use crate::feed::object::destination::values::{any_time, count, number, share, time};
use crate::feed::verdict::Cause;
use crate::mesh::{Limits, RetryBudget, Share, Upgrade};

/// Istio: retries as a share of what is not answered.
const BUDGET_PERCENT: f64 = 20.0;
/// Istio: retries that are always allowed.
const LEAST_RETRIES: u32 = 3;
/// Envoy's bound of `max_requests_per_connection`.
const MOST_REQUESTS: u32 = 1 << 29;

/// `connectionPool`.
pub(super) fn read(pool: &Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(tcp) = pool.fields("tcp") {
        limits.connections = count(&tcp, "maxConnections");
        limits.connect_timeout = time(&tcp, "connectTimeout");
        limits.max_age = time(&tcp, "maxConnectionDuration");
        let reason = "endpoints are reached through tunnels, which watch their peer themselves";
        tcp.unsupported(&["tcpKeepalive"], reason);
        limits.stream_idle = any_time(&tcp, "idleTimeout").filter(|idle| !idle.is_zero());
    }
    let Some(http) = pool.fields("http") else { return limits };
    limits.pending = count(&http, "http1MaxPendingRequests");
    limits.requests = count(&http, "http2MaxRequests");
    limits.retries = count(&http, "maxRetries");
    limits.streams = count(&http, "maxConcurrentStreams");
    limits.requests_per_connection =
        number(&http, "maxRequestsPerConnection", MOST_REQUESTS).filter(|most| *most > 0);
    limits.idle_timeout = any_time(&http, "idleTimeout");
    http.unsupported(&["http2KeepAlive"], "tunnels watch their peer themselves");
    let client = http.flag("useClientProtocol") == Some(true);
    limits.upgrade = match http.text("h2UpgradePolicy") {
        Some("UPGRADE") if client => {
            let reason = "cannot be UPGRADE together with useClientProtocol";
            http.report("h2UpgradePolicy", Cause::Invalid, reason);
            Upgrade::Client
        }
        Some("UPGRADE") => Upgrade::Http2,
        None | Some("DEFAULT" | "DO_NOT_UPGRADE") if client => Upgrade::Client,
        None | Some("DEFAULT" | "DO_NOT_UPGRADE") => Upgrade::Default,
        Some(other) => {
            let reason = format!("\"{other}\" is none of DEFAULT, DO_NOT_UPGRADE and UPGRADE");
            http.report("h2UpgradePolicy", Cause::Invalid, reason);
            Upgrade::Default
        }
    };
    limits
}

/// `retryBudget` of a policy.
pub(super) fn retry_budget(policy: &Fields<'_>) -> Option<RetryBudget> {
    let fields = policy.fields("retryBudget")?;
    let default = Share::percent(BUDGET_PERCENT).unwrap_or(Share::WHOLE);
    Some(RetryBudget {
        share: share(&fields, "percent").unwrap_or(default),
        least: number(&fields, "minRetryConcurrency", u32::MAX).unwrap_or(LEAST_RETRIES),
    })
}
