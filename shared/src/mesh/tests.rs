//! Lookups, and the law that changes and a rebuild from scratch give the same mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::authz::{Action, GatewayKey, Policy, PolicyKey, PolicyTarget, Scope as PolicyScope};

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn vip(last: u8) -> NetworkAddr {
    NetworkAddr { network: "".into(), address: ip(last) }
}

fn policy(name: &str, namespace: &str, scope: PolicyScope) -> Policy {
    let key = sample::policy_key(name, namespace);
    Policy {
        key,
        scope,
        targets: Box::default(),
        action: Action::Deny,
        dry_run: false,
        groups: Vec::new(),
    }
}

fn mesh(changes: impl IntoIterator<Item = Change>) -> Arc<Mesh> {
    let (mut writer, reader) = writer();
    writer.apply(changes);
    reader.load()
}

#[test]
fn pod_in_the_mesh_wins_a_shared_address() {
    let at = |name: &str, uid: &str, protocol| {
        let mut workload = sample::workload(name, "ns");
        workload.uid = Uid(uid.into());
        workload.protocol = protocol;
        workload.addresses = [ip(1)].into();
        workload
    };
    let mut all = vec![
        at("a", "c/WorkloadEntry/ns/a", Protocol::Tcp),
        at("b", "c/WorkloadEntry/ns/b", Protocol::Hbone),
        at("c", "c//Pod/ns/c", Protocol::Tcp),
        at("d", "c//Pod/ns/d", Protocol::Hbone),
    ];
    while let Some(expected) = all.last() {
        let mesh = mesh(all.iter().cloned().map(Change::from));
        assert_eq!(mesh.workload_by_addr("", ip(1)).unwrap().name, expected.name);
        all.pop();
    }
}

#[test]
fn host_network_and_other_networks_are_not_found_by_address() {
    let mut host = sample::workload("host", "ns");
    host.addresses = [ip(1)].into();
    host.network_mode = NetworkMode::HostNetwork;
    let mut far = sample::workload("far", "ns");
    far.addresses = [ip(2)].into();
    far.network = "far".into();
    let mesh = mesh([host.into(), far.into()]);
    assert!(mesh.workload_by_addr("", ip(1)).is_none());
    assert!(mesh.workload_by_addr("", ip(2)).is_none());
    assert!(mesh.workload_by_addr("far", "::ffff:10.0.0.2".parse().unwrap()).is_some());
}

#[test]
fn own_namespace_then_canonical_wins_an_address() {
    let service = |namespace: &str, canonical| {
        let mut service = sample::service("web", namespace);
        service.vips = [vip(9)].into();
        service.canonical = canonical;
        service
    };
    let mesh =
        mesh([service("a", false), service("b", true), service("c", false)].map(Change::from));
    let found = |client| mesh.service_by_vip("", ip(9), client).unwrap().key.namespace.to_string();
    assert_eq!(found(Some("c")), "c");
    assert_eq!(found(Some("other")), "b");
    assert_eq!(found(None), "b");
}

#[test]
fn private_services_are_seen_by_their_namespace_only() {
    let mut service = sample::service("web", "a");
    service.vips = [vip(9)].into();
    service.visibility = Visibility::Namespace;
    let hostname = service.key.hostname.clone();
    let mesh = mesh([service.into()]);
    for (client, seen) in [(Some("a"), true), (Some("b"), false), (None, true)] {
        assert_eq!(mesh.service_by_vip("", ip(9), client).is_some(), seen);
        assert_eq!(mesh.service_by_hostname(&hostname, client).is_some(), seen);
    }
}

#[test]
fn longest_prefix_wins_among_ranges_and_exact_before_all() {
    let range = |name: &str, range: &str| {
        let mut service = sample::service(name, "ns");
        service.cidr_vips = [(Arc::from(""), range.parse().unwrap())].into();
        service
    };
    let mut exact = sample::service("exact", "ns");
    exact.vips = [vip(1)].into();
    let mesh =
        mesh([range("wide", "10.0.0.0/8"), range("near", "10.0.0.0/28"), exact].map(Change::from));
    let found = |last| mesh.service_by_vip("", ip(last), Some("x")).map(|one| one.name.to_string());
    assert_eq!(found(1).as_deref(), Some("exact"));
    assert_eq!(found(2).as_deref(), Some("near"));
    assert_eq!(found(200).as_deref(), Some("wide"));
    assert!(mesh.service_by_vip("other", ip(2), None).is_none());
}

#[test]
fn endpoints_wait_for_their_service_and_for_health() {
    let key = sample::service_key("web", "ns");
    let endpoint = |name: &str, health| {
        let mut workload = sample::workload(name, "ns");
        workload.services = [(key.clone(), [(80, 8080)].into())].into();
        workload.health = health;
        Change::from(workload)
    };
    let (mut writer, reader) = writer();
    writer.apply([endpoint("a", Health::Healthy), endpoint("b", Health::Unhealthy)]);
    assert_eq!(reader.load().endpoints(&key).count(), 0);
    let mut service = sample::service("web", "ns");
    writer.apply([service.clone().into()]);
    assert_eq!(reader.load().endpoints(&key).count(), 1);
    service.health_policy = HealthPolicy::AllowAll;
    writer.apply([service.into()]);
    assert_eq!(reader.load().endpoints(&key).count(), 2);
}

#[test]
fn policies_of_mesh_and_namespace_apply_and_missing_ones_are_named() {
    let mut workload = sample::workload("a", "ns");
    workload.policies =
        [sample::policy_key("chosen", "ns"), sample::policy_key("gone", "ns")].into();
    let mesh = mesh([
        policy("global", "root", PolicyScope::Global).into(),
        policy("own", "ns", PolicyScope::Namespace).into(),
        policy("other", "elsewhere", PolicyScope::Namespace).into(),
        policy("chosen", "ns", PolicyScope::WorkloadSelector).into(),
        policy("unchosen", "ns", PolicyScope::WorkloadSelector).into(),
    ]);
    let names: Vec<_> = mesh
        .policies_for(&workload)
        .map(|applied| match applied {
            Applied::Policy(policy) => policy.key.name.to_string(),
            Applied::Missing(key) => format!("missing {}", key.name),
        })
        .collect();
    assert_eq!(names, ["global", "own", "chosen", "missing gone"]);
}

#[test]
fn only_what_decisions_depend_on_moves_the_policy_generation() {
    let (mut writer, reader) = writer();
    let mut workload = sample::workload("a", "ns");
    writer.apply([workload.clone().into(), policy("p", "ns", PolicyScope::Namespace).into()]);
    assert_eq!((reader.load().generation(), *reader.policies_changed().borrow()), (1, 1));
    writer.apply([workload.clone().into()]);
    assert_eq!(reader.load().generation(), 1, "nothing changed");
    workload.health = Health::Unhealthy;
    writer.apply([workload.clone().into()]);
    assert_eq!((*reader.changed().borrow(), reader.load().policy_generation()), (2, 1));
    workload.policies = [sample::policy_key("p", "ns")].into();
    writer.apply([workload.into()]);
    assert_eq!(reader.load().policy_generation(), 3);
}

/// Everything that lookups can see.
fn shape(mesh: &Mesh) -> String {
    let by_address: Vec<_> = mesh.by_address.iter().map(|r| (r.address, &r.workload)).collect();
    let by_vip: Vec<_> = mesh.by_vip.iter().map(|r| (&r.network, r.address, &r.service)).collect();
    let ranges: Vec<_> = mesh.by_range.iter().map(|r| (&r.network, r.range, &r.service)).collect();
    let endpoints: Vec<_> = mesh.endpoints.iter().map(|r| (r.service, &r.workload)).collect();
    let workloads: Vec<_> = [&mesh.workloads, &mesh.by_name, &mesh.by_hostname]
        .map(|index| index.iter().collect::<Vec<_>>())
        .into();
    let services: Vec<_> = mesh.services().collect();
    let policies: Vec<_> =
        [&mesh.policies, &mesh.wide_policies].map(|index| index.iter().collect::<Vec<_>>()).into();
    let routes: Vec<_> = mesh.routes().collect();
    let by_target: Vec<_> = mesh.by_target.iter().map(|r| (&r.target, &r.policy)).collect();
    let gateways: Vec<_> = mesh.gateways().collect();
    let by_parent: Vec<_> = mesh.by_parent.iter().map(|r| (&r.service, &r.route)).collect();
    format!(
        "{by_address:?}{by_vip:?}{ranges:?}{endpoints:?}{workloads:?}{services:?}{policies:?}\
         {routes:?}{by_target:?}{by_parent:?}{gateways:?}"
    )
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let parts = (0..8u8, 0..2u8, prop::collection::vec(0..6u8, 0..3), 0..8u8, any::<[bool; 4]>());
    parts.prop_map(|(name, namespace, mut addresses, services, [host, named, healthy, far])| {
        addresses.sort_unstable();
        addresses.dedup();
        let mut workload = sample::workload(&format!("w{name}"), &format!("ns{namespace}"));
        workload.addresses = addresses.into_iter().map(ip).collect();
        workload.network_mode = if host { NetworkMode::HostNetwork } else { NetworkMode::Standard };
        workload.hostname = named.then(|| format!("h{name}").into());
        workload.health = if healthy { Health::Healthy } else { Health::Unhealthy };
        workload.network = if far { "far".into() } else { "".into() };
        let chosen = (0..3).filter(|bit| services & (1 << bit) != 0);
        workload.services = chosen
            .map(|bit| (sample::service_key(&format!("s{bit}"), "ns0"), [(80, 8080)].into()))
            .collect();
        workload
    })
}

fn target(which: u8) -> PolicyTarget {
    match which {
        0 => PolicyTarget::Waypoints,
        1 => PolicyTarget::Gateway(gateway("wp")),
        _ => PolicyTarget::Service(sample::service_key(&format!("s{which}"), "ns0")),
    }
}

fn gateway(name: &str) -> GatewayKey {
    GatewayKey { namespace: "ns0".into(), name: name.into() }
}

#[test]
fn a_waypoint_has_the_policies_of_its_class_its_gateway_and_the_service_asked_for() {
    let with = |name: &str, which: &[u8]| {
        let mut policy = policy(name, "ns0", PolicyScope::Targets);
        policy.targets = which.iter().copied().map(target).collect();
        Change::from(policy)
    };
    let (mut writer, reader) = writer();
    writer.apply([with("all", &[0]), with("own", &[1]), with("two", &[2]), with("both", &[2, 3])]);
    let mesh = reader.load();
    let names = |own: &GatewayKey, service: Option<u8>| {
        let service = service.map(|n| sample::service_key(&format!("s{n}"), "ns0"));
        let found = mesh.policies_behind(own, service.as_ref());
        found.map(|policy| policy.key.name.to_string()).collect::<Vec<_>>()
    };
    let own = gateway("wp");
    assert_eq!(names(&own, None), ["all", "own"]);
    assert_eq!(names(&own, Some(2)), ["all", "own", "both", "two"]);
    assert_eq!(names(&own, Some(3)), ["all", "own", "both"]);
    assert_eq!(names(&gateway("other"), Some(4)), ["all"]);
    let workload = sample::workload("w", "ns0");
    assert_eq!(mesh.policies_for(&workload).count(), 0, "they are for waypoints alone");
}

fn any_change() -> impl Strategy<Value = Change> {
    let service = (0..4u8, prop::collection::vec(0..6u8, 0..3), any::<bool>()).prop_map(
        |(name, mut vips, ranged)| {
            vips.sort_unstable();
            vips.dedup();
            let mut service = sample::service(&format!("s{name}"), "ns0");
            service.vips = vips.into_iter().map(vip).collect();
            if ranged {
                let range = format!("10.0.0.0/{}", 20 + name).parse().unwrap();
                service.cidr_vips = [(Arc::from(""), range)].into();
            }
            service
        },
    );
    let scopes = [
        PolicyScope::Global,
        PolicyScope::Namespace,
        PolicyScope::WorkloadSelector,
        PolicyScope::Targets,
    ];
    let targets = prop::collection::vec(0..4u8, 0..4);
    let policy = (0..4u8, prop::sample::select(scopes.to_vec()), targets).prop_map(
        |(name, scope, targets)| {
            let mut policy = policy(&format!("p{name}"), "ns0", scope);
            if scope == PolicyScope::Targets {
                policy.targets = targets.into_iter().map(target).collect();
            }
            policy
        },
    );
    let route = (0..4u8, prop::collection::vec((0..3u8, prop::option::of(80..82u16)), 0..4));
    let route = route.prop_map(|(name, parents)| {
        let mut route =
            sample::route(&format!("r{name}"), "ns0", &sample::service_key("s", "ns0"), Vec::new());
        let parents = parents.into_iter().map(|(service, port)| {
            let service = sample::service_key(&format!("s{service}"), "ns0");
            RouteParent { service, port }
        });
        route.parents = parents.collect();
        route
    });
    prop_oneof![
        2 => route.clone().prop_map(Change::from),
        1 => route.prop_map(|route| Change::RemoveRoute(route.key)),
        4 => any_workload().prop_map(Change::from),
        2 => any_workload().prop_map(|workload| Change::RemoveWorkload(workload.uid)),
        2 => service.clone().prop_map(Change::from),
        1 => service.prop_map(|service| Change::RemoveService(service.key)),
        2 => policy.clone().prop_map(Change::from),
        1 => policy.prop_map(|policy| Change::RemovePolicy(policy.key)),
        1 => (0..2u8, any::<bool>()).prop_map(|(name, tells_client)| {
            Change::Gateway(Arc::new(Gateway { key: gateway(&format!("g{name}")), tells_client }))
        }),
        1 => (0..2u8).prop_map(|name| Change::RemoveGateway(gateway(&format!("g{name}")))),
    ]
}

#[derive(Default)]
struct Model {
    workloads: BTreeMap<Uid, Change>,
    services: BTreeMap<ServiceKey, Change>,
    policies: BTreeMap<PolicyKey, Change>,
    routes: BTreeMap<RouteKey, Change>,
    gateways: BTreeMap<Arc<str>, Change>,
}

impl Model {
    fn fold(&mut self, change: Change) {
        match &change {
            Change::Workload(new) => drop(self.workloads.insert(new.uid.clone(), change)),
            Change::RemoveWorkload(uid) => drop(self.workloads.remove(uid)),
            Change::Service(new) => drop(self.services.insert(new.key.clone(), change)),
            Change::RemoveService(key) => drop(self.services.remove(key)),
            Change::Policy(new) => drop(self.policies.insert(new.key.clone(), change)),
            Change::RemovePolicy(key) => drop(self.policies.remove(key)),
            Change::Route(new) => drop(self.routes.insert(new.key.clone(), change)),
            Change::RemoveRoute(key) => drop(self.routes.remove(key)),
            Change::Gateway(new) => drop(self.gateways.insert(new.key.name.clone(), change)),
            Change::RemoveGateway(key) => drop(self.gateways.remove(&key.name)),
        }
    }

    fn rebuild(&self) -> Arc<Mesh> {
        let services = self.services.values().chain(self.policies.values());
        let services = self.routes.values().chain(self.gateways.values()).chain(services);
        mesh(services.chain(self.workloads.values()).cloned())
    }
}

proptest! {
    #[test]
    fn changes_give_the_same_mesh_as_a_rebuild(
        batches in prop::collection::vec(prop::collection::vec(any_change(), 1..6), 1..20),
    ) {
        let (mut writer, reader) = writer();
        let mut model = Model::default();
        for batch in batches {
            let (before, shape_before) = (reader.load(), shape(&reader.load()));
            batch.iter().cloned().for_each(|change| model.fold(change));
            writer.apply(batch);
            prop_assert_eq!(shape(&before), shape_before, "a snapshot never changes");
            prop_assert_eq!(shape(&reader.load()), shape(&model.rebuild()));
        }
    }
}

/// Design D2: with 100,000 workloads, publishing one change takes less than 1 ms. The deadline here
/// is five times that, in an unoptimised build.
#[test]
fn publishing_one_change_does_not_cost_the_size_of_the_mesh() {
    let workload = |number: u32| {
        let mut workload = sample::workload(&format!("pod-{number}"), "ns");
        workload.addresses = [IpAddr::from((0x0a00_0000 + number).to_be_bytes())].into();
        workload.services =
            [(sample::service_key(&format!("s{}", number % 500), "ns"), [(80, 80)].into())].into();
        workload
    };
    let (mut writer, reader) = writer();
    writer.apply((0..100_000).map(|number| workload(number).into()));
    let times: Vec<_> = (0..50)
        .map(|round| {
            let held = reader.load();
            let mut changed = workload(round * 1999);
            changed.health = Health::Unhealthy;
            let started = tokio::time::Instant::now();
            writer.apply([changed.into()]);
            drop(held);
            started.elapsed()
        })
        .collect();
    let median = {
        let mut sorted = times.clone();
        sorted.sort_unstable();
        sorted[25]
    };
    println!("median publish at 100,000 workloads: {median:?}");
    assert!(median < std::time::Duration::from_millis(5), "{times:?}");
}
