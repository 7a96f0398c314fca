//! `outlierDetection`.

use std::time::Duration;

use crate::feed::fields::Fields;
use crate::feed::object::destination::values::{number, percent, time};
use crate::feed::verdict::Cause;
use crate::mesh::OutlierDetection;

/// Istio's defaults (spec L7 §3.5).
const CONSECUTIVE: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION: Duration = Duration::from_secs(30);
const MAX_EJECTION_PERCENT: u8 = 10;

pub(super) fn read(fields: &Fields<'_>) -> OutlierDetection {
    let limit = |name: &str, default: u32| {
        Some(number(fields, name, u32::MAX).unwrap_or(default)).filter(|limit| *limit > 0)
    };
    let split = fields.flag("splitExternalLocalOriginErrors").unwrap_or(false);
    let local = limit("consecutiveLocalOriginFailures", CONSECUTIVE);
    if !split && fields.has("consecutiveLocalOriginFailures") {
        let reason = "counts only with splitExternalLocalOriginErrors";
        fields.report("consecutiveLocalOriginFailures", Cause::Unsupported, reason);
    }
    let reason = "is of old versions; write consecutive5xxErrors or consecutiveGatewayErrors";
    fields.unsupported(&["consecutiveErrors"], reason);
    // 0 is "not set".
    let most = percent(fields, "maxEjectionPercent").filter(|most| *most > 0);
    OutlierDetection {
        consecutive_5xx: limit("consecutive5xxErrors", CONSECUTIVE),
        consecutive_gateway_errors: limit("consecutiveGatewayErrors", 0),
        consecutive_local_failures: local.filter(|_| split),
        split,
        interval: time(fields, "interval").unwrap_or(INTERVAL),
        base_ejection: time(fields, "baseEjectionTime").unwrap_or(BASE_EJECTION),
        max_ejection_percent: most.unwrap_or(MAX_EJECTION_PERCENT),
        min_health_percent: percent(fields, "minHealthPercent").unwrap_or(0),
        success_rate: None,
        latency: None,
    }
}
