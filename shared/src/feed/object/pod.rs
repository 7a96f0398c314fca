//! `kind: Pod`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::{Enrolment, Head, UseWaypoint};
use crate::feed::verdict::Cause;
use crate::mesh::{Health, WorkloadType};

/// A pod, as far as it says something to a mesh.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) node: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) host_network: bool,
    pub(crate) health: Health,
    /// Ended: its address may belong to another pod by now.
    pub(crate) ended: bool,
    pub(crate) deleting: bool,
    pub(crate) enrolment: Enrolment,
    pub(crate) waypoint: UseWaypoint,
    pub(crate) require_waypoint: bool,
    pub(crate) native_tunnel: bool,
    pub(crate) sidecar: bool,
    pub(crate) netns: Option<Box<str>>,
    pub(crate) bypass_inbound: bool,
    pub(crate) reroute_interfaces: Box<[Arc<str>]>,
    /// Named container ports.
    pub(crate) ports: Box<[(Arc<str>, u16)]>,
    pub(crate) network: Arc<str>,
    pub(crate) canonical_name: Arc<str>,
    pub(crate) canonical_revision: Arc<str>,
    pub(crate) workload_type: WorkloadType,
    pub(crate) workload_name: Arc<str>,
    /// A container that may send raw packets, and so could pose as the proxy.
    pub(crate) raw_network: Option<Box<str>>,
}

/// Fields of `spec` that say nothing to a mesh.
const FOREIGN_SPEC: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

/// Fields of `status` that say nothing to a mesh.
const FOREIGN_STATUS: &[&str] = &[
    "containerStatuses",
    "ephemeralContainerStatuses",
    "extendedResourceClaimStatus",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "nominatedNodeName",
    "observedGeneration",
    "qosClass",
    "reason",
    "resize",
    "resourceClaimStatuses",
    "startTime",
];

/// Fields of a container that say nothing to a mesh.
const FOREIGN_CONTAINER: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

impl Pod {
    pub(crate) fn read(root: &Fields<'_>, head: &Head, intern: &mut Interner) -> Self {
        let (mut node, mut account, mut host_network) = ("", None, false);
        let mut containers = Containers::default();
        if let Some(spec) = root.fields("spec") {
            spec.foreign(FOREIGN_SPEC);
            node = spec.text("nodeName").unwrap_or("");
            account = spec.text("serviceAccountName").or_else(|| spec.text("serviceAccount"));
            spec.foreign(&["serviceAccount"]);
            host_network = spec.flag("hostNetwork").unwrap_or(false);
            containers = Containers::read(&spec, intern);
        }
        if account.is_none() {
            let reason = "no spec.serviceAccountName; the identity is that of account \"default\"";
            root.report("spec", Cause::Default, reason);
        }
        let status = Status::read(root, head.deleting);
        let (workload_type, workload_name) = owner(root, head);
        let app = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
        let version =
            ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
        let first = |keys: [&str; 3]| keys.iter().find_map(|key| head.label(key)).cloned();
        let reroute = head.annotation("istio.io/reroute-virtual-interfaces");
        let reroute = reroute.iter().flat_map(|list| list.split(',')).map(str::trim);
        Self {
            node: intern.text(node),
            service_account: intern.text(account.unwrap_or("default")),
            addresses: status.addresses,
            host_network,
            health: status.health,
            ended: status.ended,
            deleting: head.deleting,
            enrolment: head.enrolment,
            waypoint: head.waypoint.clone(),
            require_waypoint: head.is_annotated("culvert.dev/require-waypoint"),
            native_tunnel: head.label("networking.istio.io/tunnel").is_some_and(|v| **v == *"http"),
            sidecar: head.annotation("sidecar.istio.io/status").is_some(),
            netns: head.annotation("culvert.dev/netns").map(|path| (**path).into()),
            bypass_inbound: head.is_annotated("ambient.istio.io/bypass-inbound-capture"),
            reroute_interfaces: reroute.filter(|n| !n.is_empty()).map(|n| intern.text(n)).collect(),
            ports: containers.ports.into(),
            network: head.label("topology.istio.io/network").cloned().unwrap_or_default(),
            canonical_name: first(app).unwrap_or_else(|| intern.text(&workload_name)),
            canonical_revision: first(version).unwrap_or_else(|| intern.text("latest")),
            workload_type,
            workload_name: intern.text(&workload_name),
            raw_network: containers.raw_network,
        }
    }
}

#[derive(Debug, Default)]
struct Containers {
    ports: Vec<(Arc<str>, u16)>,
    raw_network: Option<Box<str>>,
}

impl Containers {
    fn read(spec: &Fields<'_>, intern: &mut Interner) -> Self {
        let mut all = Self::default();
        for list in ["containers", "initContainers"] {
            for container in spec.each(list) {
                container.foreign(FOREIGN_CONTAINER);
                let name = container.text("name").unwrap_or("?");
                for port in container.each("ports") {
                    port.foreign(&["hostPort", "hostIP", "protocol"]);
                    let number = port.number("containerPort");
                    if let (Some(name), Some(number)) = (port.text("name"), number) {
                        all.ports.push((intern.text(name), number));
                    }
                }
                let context = container.fields("securityContext");
                if context.is_some_and(|context| may_send_raw(&context)) {
                    all.raw_network.get_or_insert_with(|| name.into());
                }
                container.foreign(&["securityContext"]);
            }
        }
        all
    }
}

/// Whether a container asks for the right to mark or forge packets.
fn may_send_raw(context: &Fields<'_>) -> bool {
    let added = context.fields("capabilities").map(|list| list.texts("add")).unwrap_or_default();
    let raw = ["NET_RAW", "NET_ADMIN", "CAP_NET_RAW", "CAP_NET_ADMIN", "ALL"];
    context.flag("privileged") == Some(true) || added.iter().any(|name| raw.contains(name))
}

#[derive(Debug)]
struct Status {
    addresses: Box<[IpAddr]>,
    health: Health,
    ended: bool,
}

impl Status {
    /// Without conditions (as people write pods by hand) a pod is ready.
    fn read(root: &Fields<'_>, deleting: bool) -> Self {
        let health = if deleting { Health::Unhealthy } else { Health::Healthy };
        let mut status = Self { addresses: Box::default(), health, ended: false };
        let Some(fields) = root.fields("status") else { return status };
        fields.foreign(FOREIGN_STATUS);
        status.ended = matches!(fields.text("phase"), Some("Succeeded" | "Failed"));
        let mut addresses: Vec<IpAddr> = fields.parsed("podIP").into_iter().collect();
        for address in fields.each("podIPs") {
            addresses.extend(address.parsed::<IpAddr>("ip"));
        }
        let mut unique = Vec::new();
        for address in addresses.iter().map(IpAddr::to_canonical) {
            if !unique.contains(&address) {
                unique.push(address);
            }
        }
        status.addresses = unique.into();
        for condition in fields.each("conditions") {
            condition.foreign(&[
                "lastProbeTime",
                "lastTransitionTime",
                "message",
                "observedGeneration",
                "reason",
            ]);
            let state = condition.text("status");
            if condition.text("type") == Some("Ready") && state != Some("True") {
                status.health = Health::Unhealthy;
            }
        }
        status
    }
}

/// Kind and name of what runs the pod, from its controller.
fn owner(root: &Fields<'_>, head: &Head) -> (WorkloadType, String) {
    let owners = root.fields("metadata").map(|meta| meta.each("ownerReferences"));
    let controller = owners.unwrap_or_default().into_iter().find_map(|owner| {
        let (kind, name) = (owner.text("kind")?, owner.text("name")?);
        (owner.flag("controller") != Some(false)).then_some((kind, name))
    });
    root.fields("metadata").inspect(|meta| meta.foreign(&["ownerReferences"]));
    let stem = |name: &str| name.rsplit_once('-').map(|(stem, _)| stem.to_owned());
    match controller {
        Some(("ReplicaSet", name)) if head.label("pod-template-hash").is_some() => {
            (WorkloadType::Deployment, stem(name).unwrap_or_else(|| name.to_owned()))
        }
        Some(("Job", name)) => match name.rsplit_once('-') {
            Some((cron, time)) if time.len() >= 8 && time.bytes().all(|b| b.is_ascii_digit()) => {
                (WorkloadType::CronJob, cron.to_owned())
            }
            _ => (WorkloadType::Job, name.to_owned()),
        },
        Some((_, name)) => (WorkloadType::Pod, name.to_owned()),
        None => (WorkloadType::Pod, head.key.name.to_string()),
    }
}
