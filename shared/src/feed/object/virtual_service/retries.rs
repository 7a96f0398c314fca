//! `retries`: which failures are answered by another attempt.
//!
//! Source: spec L7 §3.6; design D8.

use crate::feed::fields::Fields;
use crate::feed::object::destination::values;
use crate::feed::object::route::policy::RetryReader;
use crate::feed::verdict::Cause;
use crate::mesh::Retry;

/// More attempts than that are taken for a mistake.
const MOST_ATTEMPTS: i64 = 100;

/// Istio's conditions where a rule says none.
const DEFAULT: &str = "connect-failure,refused-stream,unavailable,cancelled";

/// `retries` of a rule; one without attempts repeats nothing.
pub(super) fn read(fields: &Fields<'_>, reader: &mut RetryReader) -> Option<Retry> {
    let attempts = fields.number::<i64>("attempts").unwrap_or(0);
    if attempts > MOST_ATTEMPTS {
        fields.report("attempts", Cause::Invalid, format_args!("must be at most {MOST_ATTEMPTS}"));
    }
    if !fields.has("attempts") {
        fields.report("attempts", Cause::Default, "without attempts nothing is repeated");
    }
    let reason = "each attempt goes to another endpoint while there is one, in the order of \
                  their load and place";
    fields.unsupported(&["retryRemoteLocalities"], reason);
    if fields.flag("retryIgnorePreviousHosts") == Some(false) {
        fields.report("retryIgnorePreviousHosts", Cause::Unsupported, reason);
    }
    let text = fields.text("retryOn").filter(|text| !text.trim().is_empty());
    let mut retry = Retry {
        codes: Box::default(),
        server_errors: false,
        grpc: Box::default(),
        broken: false,
        attempts: u32::try_from(attempts.clamp(0, MOST_ATTEMPTS)).unwrap_or(0),
        backoff: values::time(fields, "backoff"),
        delivered: reader.delivered(),
    };
    let (mut codes, mut grpc) = (Vec::new(), Vec::new());
    for token in text.unwrap_or(DEFAULT).split(',').map(str::trim).filter(|one| !one.is_empty()) {
        if !condition(token, &mut retry, &mut codes, &mut grpc) {
            let reason = format!("\"{token}\" is no condition that is supported, and is left out");
            fields.report("retryOn", Cause::Unsupported, reason);
        }
    }
    codes.sort_unstable();
    codes.dedup();
    retry.codes = codes.into();
    retry.grpc = grpc.into();
    if retry.attempts > 0 {
        reader.remark(fields, "");
    }
    Some(retry)
}

/// Puts one condition in force; false when there is no such condition.
fn condition(token: &str, retry: &mut Retry, codes: &mut Vec<u16>, grpc: &mut Vec<u8>) -> bool {
    match token {
        // Nothing of such a request was delivered: it is always sent elsewhere.
        "connect-failure" | "refused-stream" | "reset-before-request" => {}
        // Its statuses are numbers in this list.
        "retriable-status-codes" => {}
        "5xx" => (retry.server_errors, retry.broken) = (true, true),
        "gateway-error" => {
            codes.extend([502, 503, 504]);
            retry.broken = true;
        }
        "reset" => retry.broken = true,
        "retriable-4xx" => codes.push(409),
        "cancelled" => grpc.push(1),
        "deadline-exceeded" => grpc.push(4),
        "resource-exhausted" => grpc.push(8),
        "internal" => grpc.push(13),
        "unavailable" => grpc.push(14),
        number => match number.parse() {
            Ok(status @ 100..=599) => codes.push(status),
            _ => return false,
        },
    }
    true
}
