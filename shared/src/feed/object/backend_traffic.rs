//! `kind: XBackendTrafficPolicy`, as far as it is about retries.
//!
//! Source: Gateway API GEP-3388, spec L7 §2.9.

use std::sync::Arc;
use std::time::Duration;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::route::policy::time;
use crate::feed::verdict::Cause;
use crate::mesh::RetryConstraint;

/// A policy whose services are not looked up.
#[derive(Debug, Clone)]
pub(crate) struct BackendTraffic {
    /// Names of services of its namespace, with the paths of what names them.
    pub(crate) services: Vec<(Box<str>, Arc<str>)>,
    pub(crate) constraint: Option<RetryConstraint>,
}

/// GEP-3388's bounds of `budget.interval`, and of `minRetryRate.interval` alike.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_600);
/// GEP-3388's bound of `minRetryRate.count`.
const MOST: u32 = 1_000_000;

impl BackendTraffic {
    pub(crate) fn read(root: &Fields<'_>, intern: &mut Interner) -> Option<Self> {
        root.foreign(&["status"]);
        let spec = root.fields("spec")?;
        spec.unsupported(&["sessionPersistence"], "say it in the route's rules");
        let mut services = Vec::new();
        for target in spec.each("targetRefs") {
            let group = target.text("group").unwrap_or_default();
            let kind = target.text("kind").unwrap_or_default();
            match target.text("name") {
                Some(name) if group.is_empty() && kind == "Service" => {
                    services.push((target.path().into(), intern.text(name)));
                }
                _ => target.report("kind", Cause::Unsupported, "only a Service can be a target"),
            }
        }
        let constraint = spec.fields("retryConstraint").map(|fields| read(&fields));
        Some(Self { services, constraint })
    }
}

fn read(fields: &Fields<'_>) -> RetryConstraint {
    let default = RetryConstraint::default();
    let (mut percent, mut interval) = (default.percent, default.interval);
    if let Some(budget) = fields.fields("budget") {
        let said = whole(&budget, "percent", 100).and_then(|said| u8::try_from(said).ok());
        percent = said.unwrap_or(percent);
        interval = bounded_time(&budget).unwrap_or(interval);
    }
    // 10 per second, where nothing is said.
    let (mut count, mut each) = (10, Duration::from_secs(1));
    if let Some(rate) = fields.fields("minRetryRate") {
        count = whole(&rate, "count", MOST).unwrap_or(count);
        each = bounded_time(&rate).unwrap_or(each);
    }
    let minimum = f64::from(count) * interval.as_secs_f64() / each.as_secs_f64();
    // At most 1,000,000 × 3,600.
    RetryConstraint { percent, interval, minimum: minimum.round() as u32 }
}

fn whole(fields: &Fields<'_>, name: &str, most: u32) -> Option<u32> {
    let number = fields.number::<u32>(name)?;
    if number > most {
        fields.report(name, Cause::Invalid, format_args!("must be 0 to {most}"));
    }
    Some(number)
}

fn bounded_time(fields: &Fields<'_>) -> Option<Duration> {
    let time = time(fields, "interval")?;
    if !(SHORTEST..=LONGEST).contains(&time) {
        fields.report("interval", Cause::Invalid, "must be 1s to 1h");
    }
    Some(time.clamp(SHORTEST, LONGEST))
}
