//! `localityLbSetting`.

use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;
use crate::mesh::{LocalityPreference, Scope};

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
    let reason = "requests are not parted by weights of localities";
    fields.unsupported(&["distribute"], reason);
    let regions: Box<[_]> = fields
        .at_most("failover", MOST_REGIONS)
        .iter()
        .filter_map(|one| region(one, intern))
        .collect();
    let scopes = scopes(fields);
    if fields.flag("enabled") == Some(false) {
        return LocalityPreference::Off;
    }
    match (LocalityPreference::default(), scopes) {
        (LocalityPreference::Failover { scopes, .. }, None) => {
            LocalityPreference::Failover { scopes, regions }
        }
        (_, Some(scopes)) => LocalityPreference::Failover { scopes, regions },
        (off, None) => off,
    }
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
