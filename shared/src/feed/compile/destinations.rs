//! Destination rules, given to the services that they are for.
//!
//! Invariants: a service has the policies of one namespace: the waypoint's, else its own, else the
//! root's; within it those of the most specific host. Rules of one host are one: the oldest says
//! what several say, subsets add up.
//! Source: Istio's DestinationRule, spec L7 §3.2.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::feed::compile::world::World;
use crate::feed::compile::{Compiled, Options};
use crate::feed::object::{Body, DestinationRule, Groups, Object, PolicyRead};
use crate::feed::verdict::{Cause, Verdict};
use crate::mesh::{PolicyScope, Service, Subset, TrafficPolicies};

pub(super) fn compile(world: &mut World<'_>, compiled: &mut Compiled) {
    let rules = Rules::read(world);
    if rules.by_namespace.is_empty() {
        return;
    }
    for service in compiled.services.values_mut() {
        if let Some(found) = rules.of(service, world.options) {
            Arc::make_mut(service).traffic = Some(found);
        }
    }
    rules.tell(compiled, &mut world.verdicts);
}

/// The rules of a mesh.
struct Rules<'a> {
    by_namespace: HashMap<&'a str, ByHost<'a>>,
}

#[derive(Default)]
struct ByHost<'a> {
    exact: HashMap<Box<str>, Vec<Merged<'a>>>,
    /// By what follows the `*`, the longest first.
    suffixes: Vec<(&'a str, Vec<Merged<'a>>)>,
}

/// Rules of one namespace for one host and the same clients.
struct Merged<'a> {
    /// The oldest first.
    rules: Vec<(&'a Object, &'a DestinationRule)>,
    policies: Arc<TrafficPolicies>,
    shadowed: Vec<Verdict>,
    reach: Cell<Reach>,
}

/// Which services rules have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// There is none of that host.
    Nothing,
    /// Some of that host, for which other rules come first.
    Passed,
    /// Some, which no waypoint serves.
    Idle,
    /// Some.
    InForce,
}

impl<'a> Rules<'a> {
    fn read(world: &World<'a>) -> Self {
        type Place<'a> = (&'a str, Box<str>);
        let mut all: BTreeMap<Place<'a>, Vec<(&'a Object, &'a DestinationRule)>> = BTreeMap::new();
        for object in world.objects {
            if let Body::DestinationRule(rule) = &object.body {
                let namespace = &*object.key.namespace;
                let host = world.full_host(&rule.host, namespace);
                all.entry((namespace, host)).or_default().push((object, rule));
            }
        }
        let mut by_namespace: HashMap<&'a str, ByHost<'a>> = HashMap::new();
        for ((namespace, host), mut rules) in all {
            rules.sort_by_key(|(object, _)| (&object.created, &object.key));
            let suffix = rules[0].1.host.strip_prefix('*');
            let merged = Merged::all(rules);
            let place = by_namespace.entry(namespace).or_default();
            match suffix {
                Some(suffix) => place.suffixes.push((suffix, merged)),
                None => drop(place.exact.insert(host, merged)),
            }
        }
        for place in by_namespace.values_mut() {
            place.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        }
        Self { by_namespace }
    }

    /// The policies of `service` for its waypoint.
    fn of(&self, service: &Service, options: &Options) -> Option<Arc<TrafficPolicies>> {
        let own = &*service.key.namespace;
        let viewer = World::viewer(options, service);
        let served = options.gateway.is_some() || service.waypoints().next().is_some();
        let root = &*options.root_namespace;
        let mut places = vec![own, root];
        if viewer != root {
            places.insert(0, viewer);
        }
        places.dedup();
        let mut first = None;
        for place in places.iter().filter_map(|name| self.by_namespace.get(name)) {
            for one in place.matching(&service.key.hostname) {
                let seen = one.rules[0].1.export.reaches(viewer);
                if first.is_none() && seen {
                    first = Some(one.policies.clone());
                    one.reaches(if served { Reach::InForce } else { Reach::Idle });
                } else {
                    one.reaches(Reach::Passed);
                }
            }
        }
        first
    }

    fn tell(self, compiled: &Compiled, verdicts: &mut Vec<Verdict>) {
        let hosts = compiled.services.keys().map(|key| &*key.hostname);
        let mut known: Option<HashSet<&str>> = None;
        for place in self.by_namespace.into_values() {
            for (host, all) in place.exact {
                for one in all {
                    let of_none = one.reach.get() == Reach::Nothing;
                    if of_none
                        && known.get_or_insert_with(|| hosts.clone().collect()).contains(&*host)
                    {
                        one.reaches(Reach::Passed);
                    }
                    one.tell(verdicts);
                }
            }
            for (suffix, all) in place.suffixes {
                for one in all {
                    let of_none = one.reach.get() == Reach::Nothing;
                    if of_none && hosts.clone().any(|host| is_under(host, suffix)) {
                        one.reaches(Reach::Passed);
                    }
                    one.tell(verdicts);
                }
            }
        }
    }
}

impl<'a> ByHost<'a> {
    /// The most specific host first.
    fn matching<'b>(&'b self, host: &'b str) -> impl Iterator<Item = &'b Merged<'a>> {
        let exact = self.exact.get(host).into_iter().flatten();
        let wide = self.suffixes.iter().filter(move |(suffix, _)| is_under(host, suffix));
        exact.chain(wide.flat_map(|(_, all)| all))
    }
}

impl<'a> Merged<'a> {
    /// Rules of one host, in order of age; those for other clients stay apart.
    fn all(rules: Vec<(&'a Object, &'a DestinationRule)>) -> Vec<Self> {
        let mut groups: Vec<Vec<(&'a Object, &'a DestinationRule)>> = Vec::new();
        for rule in rules {
            match groups.iter_mut().find(|group| group[0].1.export == rule.1.export) {
                Some(group) => group.push(rule),
                None => groups.push(vec![rule]),
            }
        }
        groups.into_iter().map(Self::new).collect()
    }

    fn new(rules: Vec<(&'a Object, &'a DestinationRule)>) -> Self {
        let mut shadowed = Vec::new();
        let mut policy: Option<(&Object, &PolicyRead)> = None;
        for (object, rule) in &rules {
            match (policy, &rule.policy) {
                (None, Some(own)) => policy = Some((object, own)),
                (Some((older, first)), Some(own)) if first != own => {
                    let reason = format!("{} is older and has one for the same host", older.key);
                    shadowed.push(object.verdict("spec.trafficPolicy", Cause::Shadowed, reason));
                }
                _ => {}
            }
        }
        let none = PolicyRead::default();
        let wide = policy.map_or(&none, |(_, policy)| policy);
        let mut subsets: Vec<Subset> = Vec::new();
        for (object, rule) in &rules {
            for read in &rule.subsets {
                if subsets.iter().any(|other| other.name == read.name) {
                    let reason = format!("there is a subset {} for this host already", read.name);
                    shadowed.push(object.verdict(&read.field, Cause::Shadowed, reason));
                    continue;
                }
                subsets.push(Subset {
                    name: read.name.clone(),
                    labels: (*read.labels).into(),
                    scope: scope(read.policy.as_ref().unwrap_or(&none), wide),
                });
            }
        }
        let name = |object: &Object| format!("{}/{}", object.key.namespace, object.key.name).into();
        let policies = TrafficPolicies {
            rules: rules.iter().map(|(object, _)| name(object)).collect(),
            scope: scope(wide, &none),
            subsets: subsets.into(),
        };
        Self { rules, policies: Arc::new(policies), shadowed, reach: Cell::new(Reach::Nothing) }
    }

    fn reaches(&self, reach: Reach) {
        self.reach.set(self.reach.get().max(reach));
    }

    fn tell(self, verdicts: &mut Vec<Verdict>) {
        for (object, rule) in &self.rules {
            let host = &rule.host;
            let (cause, reason) = match self.reach.get() {
                Reach::InForce => break,
                Reach::Nothing => (Cause::Invalid, format!("there is no service of host {host}")),
                Reach::Passed => (
                    Cause::Shadowed,
                    "for its services rules count of their waypoint's namespace, then their own, \
                     then the root's, of the most specific host; this is none of them"
                        .to_owned(),
                ),
                Reach::Idle => (
                    Cause::Unsupported,
                    format!("service {host} has no waypoint, and only a waypoint acts on a rule"),
                ),
            };
            verdicts.push(object.verdict("spec.host", cause, reason));
        }
        verdicts.extend(self.shadowed);
    }
}

/// A subset's policy over the service's, group by group, also over what the service says of a port. What
/// the subset says of a port takes nothing from elsewhere (spec L7 §3.2).
fn scope(own: &PolicyRead, wider: &PolicyRead) -> PolicyScope {
    let wide = wider.ports.iter().flatten();
    let wide = wide.map(|(port, groups)| (*port, own.groups.over(groups)));
    let ports: BTreeMap<u16, Groups> = wide.chain(own.ports.iter().flatten().cloned()).collect();
    let of_port = |(port, groups): (u16, Groups)| (port, Arc::new(groups.complete()));
    PolicyScope {
        policy: Arc::new(own.groups.over(&wider.groups).complete()),
        ports: ports.into_iter().map(of_port).collect(),
    }
}

/// Whether `*suffix` means `host`; `*.x` is not `x` itself.
pub(super) fn is_under(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

#[cfg(test)]
mod tests;
