//! Detectors of outliers that `outlierDetection` has no fields for: annotations of the rule.
//!
//! Istio turns Envoy's detector by success rate off and has none by latency. Annotations leave the
//! rule one that Istio takes as well.

use std::str::FromStr;

use crate::feed::fields::Fields;
use crate::feed::object::Head;
use crate::feed::object::destination::values::duration;
use crate::feed::verdict::Cause;
use crate::mesh::{OutlierDetection, SlowAnswers, SuccessRate};

const SUCCESS_RATE: &str = "culvert.dev/outlier-success-rate";
const LATENCY: &str = "culvert.dev/outlier-latency";

/// Endpoints of one service; more is a mistake.
const MOST_HOSTS: u32 = 10_000;
const MOST_REQUESTS: u32 = 1_000_000;

/// Gives the detectors to every `outlierDetection` of the rule.
pub(super) fn read<'a>(
    root: &Fields<'_>,
    head: &Head,
    all: impl Iterator<Item = &'a mut OutlierDetection>,
) {
    let Some(annotations) = root.fields("metadata").and_then(|meta| meta.fields("annotations"))
    else {
        return;
    };
    let success_rate = detector(&annotations, head, SUCCESS_RATE, SuccessRate::take);
    let latency = detector(&annotations, head, LATENCY, SlowAnswers::take);
    let mut is_any = false;
    for outliers in all {
        (outliers.success_rate, outliers.latency) = (success_rate, latency);
        is_any = true;
    }
    let names = [(SUCCESS_RATE, success_rate.is_some()), (LATENCY, latency.is_some())];
    for (name, _) in names.into_iter().filter(|(_, is_there)| *is_there && !is_any) {
        let reason = "counts only in a rule with outlierDetection";
        annotations.report(name, Cause::Unsupported, reason);
    }
}

/// `"true"`, or settings as `name=value,name=value`.
fn detector<T: Default>(
    annotations: &Fields<'_>,
    head: &Head,
    annotation: &str,
    take: impl Fn(&mut T, &str, &str) -> Result<(), String>,
) -> Option<T> {
    let text = head.annotation(annotation)?;
    let mut detector = T::default();
    match &**text {
        "true" => return Some(detector),
        "false" => return None,
        _ => {}
    }
    for setting in text.split(',') {
        let taken = match setting.split_once('=') {
            Some((name, value)) => take(&mut detector, name.trim(), value.trim()),
            None => Err("must be true, false, or settings as name=value,name=value".to_owned()),
        };
        if let Err(reason) = taken {
            annotations.report(annotation, Cause::Invalid, reason);
            return None;
        }
    }
    Some(detector)
}

impl SuccessRate {
    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "minimumHosts" => self.minimum_hosts = within(name, value, 2, MOST_HOSTS)?,
            "requestVolume" => self.request_volume = within(name, value, 1, MOST_REQUESTS)?,
            "stdevFactor" => self.stdev_factor = thousandths(name, value, (0.1, 10.0))?,
            _ => return Err(unknown(name, "minimumHosts, requestVolume, stdevFactor")),
        }
        Ok(())
    }
}

impl SlowAnswers {
    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "minimumHosts" => self.minimum_hosts = within(name, value, 3, MOST_HOSTS)?,
            "requestVolume" => self.request_volume = within(name, value, 1, MOST_REQUESTS)?,
            "factor" => self.factor = thousandths(name, value, (1.5, 1_000.0))?,
            "floor" => {
                let known = duration(value).filter(|floor| floor.as_secs() < 60);
                self.floor = known.ok_or_else(|| format!("{name} must be a time below 60s"))?;
            }
            _ => return Err(unknown(name, "minimumHosts, requestVolume, factor, floor")),
        }
        Ok(())
    }
}

fn unknown(name: &str, known: &str) -> String {
    format!("has no setting {name}; there are {known}")
}

fn within<T: FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    value: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let number = value.parse().ok().filter(|number| (&least..=&most).contains(&number));
    number.ok_or_else(|| format!("{name} must be {least} to {most}"))
}

/// A factor with a fraction.
fn thousandths(name: &str, value: &str, (least, most): (f64, f64)) -> Result<u32, String> {
    within(name, value, least, most).map(|factor: f64| (factor * 1_000.0).round() as u32)
}
