//! Detectors that annotations add to `outlierDetection`.

use super::*;
use crate::mesh::{SlowAnswers, SuccessRate};

fn annotated(annotation: &str, spec: &str) -> Compiled {
    let rule = rule("r", "shop", &format!("host: web, {spec}"));
    let annotations = format!("namespace: shop, annotations: {{{annotation}}},");
    compiled(&rule.replace("namespace: shop,", &annotations))
}

const OUTLIERS: &str = "trafficPolicy: {outlierDetection: {}}";

fn detectors(annotation: &str) -> (Option<SuccessRate>, Option<SlowAnswers>) {
    let compiled = annotated(annotation, OUTLIERS);
    assert_eq!(remarks(&compiled), [], "{annotation}");
    let found = policies(&compiled, "web").unwrap().scope.of_port(80).outliers.clone().unwrap();
    (found.success_rate, found.latency)
}

#[test]
fn they_are_off_unless_annotated() {
    assert_eq!(detectors(""), (None, None));
    assert_eq!(detectors("culvert.dev/outlier-success-rate: 'false'"), (None, None));
}

#[test]
fn true_means_their_defaults_and_settings_change_some() {
    let (rate, latency) = detectors("culvert.dev/outlier-success-rate: 'true'");
    assert_eq!((rate, latency), (Some(SuccessRate::default()), None));
    let (rate, latency) = detectors("culvert.dev/outlier-latency: 'true'");
    assert_eq!((rate, latency), (None, Some(SlowAnswers::default())));
    let (rate, latency) = detectors(
        "culvert.dev/outlier-success-rate: 'requestVolume=20, stdevFactor=2.5', \
         culvert.dev/outlier-latency: 'minimumHosts=4,factor=3,floor=1.5ms,requestVolume=7'",
    );
    let expected =
        SuccessRate { request_volume: 20, stdev_factor: 2_500, ..SuccessRate::default() };
    assert_eq!(rate, Some(expected));
    let floor = Duration::from_micros(1_500);
    let expected = SlowAnswers { minimum_hosts: 4, request_volume: 7, factor: 3_000, floor };
    assert_eq!(latency, Some(expected));
}

#[test]
fn every_outlier_detection_of_the_rule_has_them() {
    let spec = "trafficPolicy: {portLevelSettings: [{port: {number: 81}, outlierDetection: {}}]}, \
                subsets: [{name: a, trafficPolicy: {outlierDetection: {}}}]";
    let compiled = annotated("culvert.dev/outlier-latency: 'true'", spec);
    let found = policies(&compiled, "web").unwrap();
    assert!(found.scope.of_port(80).outliers.is_none());
    for policy in [found.scope.of_port(81), found.subsets[0].scope.of_port(80)] {
        assert_eq!(policy.outliers.as_ref().unwrap().latency, Some(SlowAnswers::default()));
    }
}

#[test]
fn what_cannot_be_is_invalid() {
    for (name, value, said) in [
        ("outlier-success-rate", "yes", "must be true, false, or settings"),
        ("outlier-success-rate", "minimumHosts=1", "minimumHosts must be 2 to 10000"),
        ("outlier-success-rate", "requestVolume=0", "requestVolume must be 1 to 1000000"),
        ("outlier-success-rate", "requestVolume=-1", "requestVolume must be"),
        ("outlier-success-rate", "stdevFactor=NaN", "stdevFactor must be 0.1 to 10"),
        ("outlier-success-rate", "factor=2", "has no setting factor"),
        ("outlier-success-rate", "requestVolume=20,", "must be true, false, or settings"),
        ("outlier-latency", "minimumHosts=2", "minimumHosts must be 3 to 10000"),
        ("outlier-latency", "factor=1.4", "factor must be 1.5 to 1000"),
        ("outlier-latency", "floor=10", "floor must be a time below 60s"),
        ("outlier-latency", "floor=61s", "floor must be a time below 60s"),
    ] {
        let compiled = annotated(&format!("culvert.dev/{name}: '{value}'"), OUTLIERS);
        let all = remarks(&compiled);
        assert_eq!(all.len(), 1, "{value}: {all:?}");
        let field = format!("metadata.annotations[\"culvert.dev/{name}\"]");
        assert_eq!((&all[0].0, all[0].1), (&field, Cause::Invalid), "{value}");
        assert!(all[0].2.contains(said), "{value}: {}", all[0].2);
        assert!(policies(&compiled, "web").is_none(), "{value} is in force");
    }
}

#[test]
fn without_outlier_detection_they_say_that_they_do_nothing() {
    let compiled = annotated(
        "culvert.dev/outlier-latency: 'true'",
        "trafficPolicy: {loadBalancer: {simple: RANDOM}}",
    );
    let all = remarks(&compiled);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].1, policies(&compiled, "web").is_some()), (Cause::Unsupported, true));
    assert!(all[0].2.contains("only in a rule with outlierDetection"), "{all:?}");
}
