//! Pods as workloads, and those of this node as pods to serve.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::feed::compile::Compiled;
use crate::feed::compile::world::{Traffic, World};
use crate::feed::local::LocalPod;
use crate::feed::object::{Body, Object, Pod, label};
use crate::feed::verdict::Cause;
use crate::mesh::{NetworkMode, PortMap, Protocol, ServiceKey, Uid, Workload};

pub(super) fn compile<'a>(world: &mut World<'a>, compiled: &mut Compiled) {
    let mut pods: Vec<(&'a Object, &'a Pod)> = Vec::new();
    for object in world.objects {
        if let Body::Pod(pod) = &object.body {
            pods.push((object, pod));
        }
    }
    pods.retain(|(_, pod)| !pod.ended && !pod.addresses.is_empty());
    // A pod that goes away gives way to the one that takes its address over.
    pods.sort_by_key(|(_, pod)| pod.deleting);
    let mut taken: HashMap<(Arc<str>, IpAddr), &'a Object> = HashMap::new();
    for (object, pod) in pods {
        if !pod.host_network && !claim(world, &mut taken, object, pod) {
            continue;
        }
        let enrolled = !pod.host_network
            && !pod.sidecar
            && world.is_enrolled(pod.enrolment, &object.key.namespace);
        if let Some(container) = pod.raw_network.as_ref().filter(|_| enrolled) {
            let reason = format!(
                "container \"{container}\" may set packet marks (NET_RAW, NET_ADMIN or privileged), \
                 so it can send past the proxy"
            );
            world.verdicts.push(object.verdict("spec", Cause::Risk, reason));
        }
        let Some(workload) = workload(world, compiled, object, pod, enrolled) else { continue };
        let named = |(namespace, name): &(Arc<str>, Arc<str>)| {
            *namespace == object.key.namespace && *name == object.key.name
        };
        let local = world.options.node.as_ref().is_some_and(|node| *node == pod.node)
            || world.options.pod.as_ref().is_some_and(named)
            || world.options.gateway.as_ref().is_some_and(|gateway| is_instance(object, gateway));
        if local && !pod.host_network {
            compiled.local_pods.push(local_pod(object, pod, &workload, enrolled));
        }
        compiled.workloads.insert(workload.uid.clone(), Arc::new(workload));
    }
    compiled
        .local_pods
        .sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
}

/// Whether a pod is an instance of the waypoint `namespace`/`name`.
fn is_instance(object: &Object, (namespace, name): &(Arc<str>, Arc<str>)) -> bool {
    let label = label(&object.labels, "gateway.networking.k8s.io/gateway-name");
    object.key.namespace == *namespace && label == Some(name)
}

/// Whether all addresses of a pod are its own; if not, the pod stays out as a whole.
fn claim<'a>(
    world: &mut World<'a>,
    taken: &mut HashMap<(Arc<str>, IpAddr), &'a Object>,
    object: &'a Object,
    pod: &'a Pod,
) -> bool {
    let network = world.network(&pod.network);
    let held = pod.addresses.iter().find_map(|ip| Some((ip, taken.get(&(network.clone(), *ip))?)));
    if let Some((address, holder)) = held {
        let reason =
            format!("{address} belongs to {} ({}:{})", holder.key, holder.file, holder.line);
        world.verdicts.push(object.verdict("status.podIPs", Cause::Shadowed, reason));
        return false;
    }
    taken.extend(pod.addresses.iter().map(|address| ((network.clone(), *address), object)));
    true
}

fn workload(
    world: &mut World<'_>,
    compiled: &mut Compiled,
    object: &Object,
    pod: &Pod,
    enrolled: bool,
) -> Option<Workload> {
    let (namespace, name) = (&object.key.namespace, &object.key.name);
    let trust_domain = &world.options.trust_domain;
    let identity = match world.intern.identity(trust_domain, namespace, &pod.service_account) {
        Ok(identity) => identity,
        Err(error) => {
            world.verdicts.push(object.verdict("spec.serviceAccountName", Cause::Invalid, error));
            return None;
        }
    };
    let waypoint = world.waypoint(object, &pod.waypoint, Traffic::Workload);
    let policies = world.policies_of(object, compiled);
    let in_mesh = enrolled || pod.native_tunnel;
    Some(Workload {
        uid: Uid(format!("{}//Pod/{namespace}/{name}", world.options.cluster_id).into()),
        name: name.clone(),
        addresses: pod.addresses.clone(),
        hostname: None,
        network: world.network(&pod.network),
        identity,
        protocol: if in_mesh { Protocol::Hbone } else { Protocol::Tcp },
        native_tunnel: pod.native_tunnel,
        require_waypoint: waypoint.is_some() || pod.require_waypoint,
        waypoint,
        network_gateway: None,
        node: pod.node.clone(),
        cluster_id: world.options.cluster_id.clone(),
        locality: world.locality(&pod.node),
        canonical_name: pod.canonical_name.clone(),
        canonical_revision: pod.canonical_revision.clone(),
        workload_type: pod.workload_type,
        workload_name: pod.workload_name.clone(),
        policies,
        health: pod.health,
        network_mode: match pod.host_network {
            true => NetworkMode::HostNetwork,
            false => NetworkMode::Standard,
        },
        app_tunnel: None,
        network_guarded: world.is_network_guarded(object),
        capacity: 1,
        labels: world.subset_labels(&object.labels),
        services: services(world, object, pod),
    })
}

/// The services that a pod is an endpoint of, in order of their keys.
fn services(world: &World<'_>, object: &Object, pod: &Pod) -> Box<[(ServiceKey, PortMap)]> {
    let key = (object.key.namespace.clone(), object.key.name.clone());
    let mut services = world.sliced.get(&key).cloned().unwrap_or_default();
    for (label, value) in &*object.labels {
        let place = (key.0.clone(), label.clone(), value.clone());
        for selecting in world.selecting.get(&place).into_iter().flatten() {
            if let Some(ports) = selecting.ports_of(object, pod) {
                services.push((selecting.key.clone(), ports));
            }
        }
    }
    for (key, entry) in world.entries_of(object) {
        services.push((key, entry));
    }
    services.sort_unstable();
    services.dedup_by(|one, other| one.0 == other.0);
    services.into()
}

fn local_pod(object: &Object, pod: &Pod, workload: &Workload, enrolled: bool) -> LocalPod {
    LocalPod {
        name: object.key.name.clone(),
        namespace: object.key.namespace.clone(),
        service_account: pod.service_account.clone(),
        uid: workload.uid.clone(),
        netns: pod.netns.as_ref().map(|path| PathBuf::from(&**path)),
        ips: pod.addresses.clone(),
        enrolled,
        bypass_inbound: pod.bypass_inbound,
        reroute_interfaces: pod.reroute_interfaces.clone(),
    }
}
