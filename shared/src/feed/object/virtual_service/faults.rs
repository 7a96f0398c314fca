//! `fault`: failures that are made on purpose.
//!
//! Source: spec L7 §3.8.

use std::time::Duration;

use http::StatusCode;

use crate::feed::fields::Fields;
use crate::feed::object::destination::values;
use crate::feed::verdict::Cause;
use crate::mesh::{Abort, AbortStatus, Delay, Fault, Share};

use super::places::{percentage, whole_percent};

/// 1 h. A request that waits holds its connection.
const LONGEST: Duration = Duration::from_secs(3600);

/// The statuses of gRPC, by their numbers.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Nothing when it makes no failure.
pub(super) fn read(fields: &Fields<'_>) -> Option<Fault> {
    let delay = fields.fields("delay").and_then(|one| delay(&one));
    let abort = fields.fields("abort").and_then(|one| abort(&one));
    if !fields.has("delay") && !fields.has("abort") {
        fields.report("", Cause::Invalid, "needs delay or abort");
    }
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

fn delay(fields: &Fields<'_>) -> Option<Delay> {
    let share = share(fields);
    let reason = "only fixedDelay is supported: nothing is delayed";
    if fields.unsupported(&["exponentialDelay"], reason) {
        return None;
    }
    if !fields.has("fixedDelay") {
        fields.report("fixedDelay", Cause::Invalid, "must be there");
    }
    let time = values::time(fields, "fixedDelay")?;
    if time > LONGEST {
        fields.report("fixedDelay", Cause::Invalid, "must be at most 1h");
    }
    Some(Delay { time, share })
}

fn abort(fields: &Fields<'_>) -> Option<Abort> {
    let share = share(fields);
    let reason = "only httpStatus and grpcStatus are supported: nothing is aborted";
    if fields.unsupported(&["http2Error"], reason) {
        return None;
    }
    let status = match (fields.has("httpStatus"), fields.has("grpcStatus")) {
        (true, false) => http(fields),
        (false, true) => grpc(fields),
        (both, _) => {
            let reason = if both { "exclude each other" } else { "are not there: one must be" };
            fields.report("", Cause::Invalid, format_args!("httpStatus and grpcStatus {reason}"));
            None
        }
    };
    Some(Abort { status: status?, share })
}

fn http(fields: &Fields<'_>) -> Option<AbortStatus> {
    let status = fields.number::<u16>("httpStatus")?;
    match StatusCode::from_u16(status) {
        Ok(code) if (200..600).contains(&status) => Some(AbortStatus::Http(code)),
        _ => {
            fields.report("httpStatus", Cause::Invalid, "must be 200 to 599");
            None
        }
    }
}

fn grpc(fields: &Fields<'_>) -> Option<AbortStatus> {
    let text = fields.text("grpcStatus")?;
    let code = (0..).zip(GRPC).find(|(_, name)| *name == text);
    if code.is_none() {
        let reason = format!("\"{text}\" is no status of gRPC, such as UNAVAILABLE");
        fields.report("grpcStatus", Cause::Invalid, reason);
    }
    code.map(|(code, _)| AbortStatus::Grpc(code))
}

/// Of which requests; of none unless it is said.
fn share(fields: &Fields<'_>) -> Share {
    let share = match fields.has("percentage") {
        true => percentage(fields, "percentage"),
        false => whole_percent(fields, "percent").flatten(),
    };
    if !fields.has("percentage") && !fields.has("percent") {
        fields.report("percentage", Cause::Default, "without it the fault is made for no request");
    }
    share.unwrap_or(Share::NOTHING)
}
