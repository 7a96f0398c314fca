//! `localityLbSetting`.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;
use crate::mesh::{Distribution, LocalityPattern, LocalityPreference, Scope};

/// Labels whose values are known of every workload.
const LABELS: &[(&str, Scope)] = &[
    ("topology.istio.io/network", Scope::Network),
    ("topology.kubernetes.io/region", Scope::Region),
    ("topology.kubernetes.io/zone", Scope::Zone),
    ("topology.istio.io/subzone", Scope::Subzone),
    ("kubernetes.io/hostname", Scope::Node),
    ("topology.istio.io/cluster", Scope::Cluster),
];

/// Istio sets no bound.
const MOST_REGIONS: usize = 100;

pub(super) fn read(fields: &Fields<'_>, intern: &mut Interner) -> LocalityPreference {
    let distributions = distributions(fields);
    let regions: Box<[_]> = fields
        .at_most("failover", MOST_REGIONS)
        .iter()
        .filter_map(|one| region(one, intern))
        .collect();
    let scopes = scopes(fields);
    if fields.flag("enabled") == Some(false) {
        return LocalityPreference::Off;
    }
    if let Some(distributions) = distributions {
        if scopes.is_some() || !regions.is_empty() {
            let reason = "cannot stand beside failover or failoverPriority";
            fields.report("distribute", Cause::Invalid, reason);
        }
        return LocalityPreference::Distribute(distributions);
    }
    match (LocalityPreference::default(), scopes) {
        (LocalityPreference::Failover { scopes, .. }, None) => {
            LocalityPreference::Failover { scopes, regions }
        }
        (_, Some(scopes)) => LocalityPreference::Failover { scopes, regions },
        (off, None) => off,
    }
}

/// `distribute`, of which no two entries are for the same place.
fn distributions(fields: &Fields<'_>) -> Option<Box<[Distribution]>> {
    let mut all: Vec<Distribution> = Vec::new();
    for one in fields.at_most("distribute", MOST_REGIONS) {
        let Some(from) = pattern(&one, "from", one.text("from").unwrap_or("")) else { continue };
        if let Some(other) = all.iter().find(|other| other.from.overlaps(&from)) {
            let reason = format!("{from} and {} of another entry overlap", other.from);
            one.report("from", Cause::Invalid, reason);
        }
        let to = targets(&one);
        all.push(Distribution { from, to });
    }
    (!all.is_empty()).then(|| all.into())
}

/// `to`, whose weights are percent and whose places do not overlap.
fn targets(fields: &Fields<'_>) -> Box<[(LocalityPattern, u32)]> {
    let mut all: Vec<(LocalityPattern, u32)> = Vec::new();
    let map = fields.fields("to");
    for name in map.iter().flat_map(|map| map.names()) {
        let Some(map) = &map else { break };
        let weight = map.number::<u32>(name).unwrap_or(0);
        let Some(place) = pattern(map, name, name) else { continue };
        if !(1..=100).contains(&weight) {
            map.report(name, Cause::Invalid, "must be 1 to 100");
        }
        if let Some((other, _)) = all.iter().find(|(other, _)| other.overlaps(&place)) {
            map.report(name, Cause::Invalid, format_args!("overlaps {other}"));
        }
        all.push((place, weight));
    }
    let total: u32 = all.iter().fold(0, |total, (_, weight)| total.saturating_add(*weight));
    if total != 100 {
        fields.report("to", Cause::Invalid, format_args!("weights add up to {total}, not to 100"));
    }
    all.into()
}

fn pattern(fields: &Fields<'_>, name: &str, text: &str) -> Option<LocalityPattern> {
    let pattern = LocalityPattern::parse(text);
    if pattern.is_none() {
        let reason = "must be region/zone/subzone, of which the end may be left out or *";
        fields.report(name, Cause::Invalid, reason);
    }
    pattern
}

fn region(fields: &Fields<'_>, intern: &mut Interner) -> Option<(Arc<str>, Arc<str>)> {
    let (from, to) = (fields.text("from").unwrap_or(""), fields.text("to").unwrap_or(""));
    let is_region = |text: &str| !text.is_empty() && !text.contains(['/', '*']);
    if !is_region(from) || !is_region(to) || from == to {
        fields.report("", Cause::Invalid, "must name two regions, without zones");
        return None;
    }
    Some((intern.text(from), intern.text(to)))
}

/// `failoverPriority`, up to the first label that is not known of workloads.
fn scopes(fields: &Fields<'_>) -> Option<Box<[Scope]>> {
    let labels = fields.texts("failoverPriority");
    if labels.is_empty() {
        return None;
    }
    let mut scopes = Vec::new();
    for label in labels {
        let Some((_, scope)) = LABELS.iter().find(|(known, _)| *known == label) else {
            let reason = format!(
                "\"{label}\" and what follows does not count: only labels of \
                                  network, region, zone, subzone, host and cluster do"
            );
            fields.report("failoverPriority", Cause::Unsupported, reason);
            break;
        };
        scopes.push(*scope);
    }
    Some(scopes.into())
}
