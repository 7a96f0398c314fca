//! `kind: ServiceEntry` and `kind: WorkloadEntry`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::service::protocol_of;
use crate::feed::object::{Head, Labels, UseWaypoint};
use crate::feed::verdict::Cause;
use crate::identity::SpiffeId;
use crate::mesh::{Locality, ServicePort, Visibility};

/// Services beyond Kubernetes, one per host.
#[derive(Debug, Clone)]
pub(crate) struct ServiceEntry {
    pub(crate) hosts: Box<[Arc<str>]>,
    pub(crate) addresses: Box<[IpNet]>,
    pub(crate) ports: Box<[ServicePort]>,
    /// `resolution: NONE`: connections go where the application sends them.
    pub(crate) passthrough: bool,
    /// `resolution: DNS`: without endpoints, the hosts themselves are.
    pub(crate) dns: bool,
    pub(crate) endpoints: Box<[Machine]>,
    /// Workloads of the namespace that are endpoints; `None` without a selector.
    pub(crate) selector: Option<Labels>,
    pub(crate) subject_alt_names: Box<[SpiffeId]>,
    pub(crate) visibility: Visibility,
    pub(crate) waypoint: UseWaypoint,
}

/// A machine: a `WorkloadEntry`, or an endpoint of a `ServiceEntry`.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) address: Option<IpAddr>,
    pub(crate) hostname: Option<Arc<str>>,
    /// Port name and number.
    pub(crate) ports: Box<[(Arc<str>, u16)]>,
    pub(crate) labels: Labels,
    pub(crate) network: Arc<str>,
    pub(crate) locality: Arc<Locality>,
    pub(crate) weight: u32,
    pub(crate) service_account: Arc<str>,
}

impl ServiceEntry {
    pub(crate) fn read(root: &Fields<'_>, head: &Head, intern: &mut Interner) -> Option<Self> {
        root.foreign(&["status"]);
        let spec = root.fields("spec")?;
        spec.foreign(&["location"]);
        let hosts: Box<[_]> = spec.texts("hosts").into_iter().map(|h| intern.text(h)).collect();
        if hosts.is_empty() {
            spec.report("hosts", Cause::Invalid, "needs at least one host");
        }
        let parse = |text: &str| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse()).map_err(|_| "is no address or range".to_owned())
        };
        let resolution = spec.text("resolution").unwrap_or("NONE");
        if !matches!(resolution, "NONE" | "STATIC" | "DNS" | "DNS_ROUND_ROBIN") {
            let reason = format!("resolution {resolution} is not supported");
            spec.report("resolution", Cause::Unsupported, reason);
            return None;
        }
        let export = spec.texts("exportTo");
        let visibility = match &*export {
            [] | ["*"] => Visibility::Public,
            ["."] => Visibility::Namespace,
            _ => {
                let reason = "only \"*\" and \".\" are supported; taken as \".\"";
                spec.report("exportTo", Cause::Unsupported, reason);
                Visibility::Namespace
            }
        };
        let endpoints = spec.each("endpoints");
        Some(Self {
            addresses: spec.parsed_list("addresses", parse).into(),
            ports: spec.each("ports").iter().filter_map(|one| port(one, intern)).collect(),
            passthrough: resolution == "NONE",
            dns: resolution.starts_with("DNS"),
            endpoints: endpoints.iter().filter_map(|one| Machine::read(one, intern)).collect(),
            selector: spec.has("workloadSelector").then(|| {
                let of = spec.fields("workloadSelector");
                let mut labels = of.map(|of| of.pairs("labels")).unwrap_or_default();
                labels.sort_unstable();
                labels.iter().map(|(key, value)| (intern.text(key), intern.text(value))).collect()
            }),
            subject_alt_names: spec
                .parsed_list("subjectAltNames", |text| {
                    text.parse::<SpiffeId>().map_err(|error| error.to_string())
                })
                .into(),
            visibility,
            waypoint: head.waypoint.clone(),
            hosts,
        })
    }
}

fn port(fields: &Fields<'_>, intern: &mut Interner) -> Option<ServicePort> {
    let (number, target) = (fields.number("number"), fields.number("targetPort"));
    let (name, protocol) = (fields.text("name").unwrap_or(""), fields.text("protocol"));
    let Some(port) = number else {
        fields.report("number", Cause::Invalid, "a port needs a number");
        return None;
    };
    let app_protocol = protocol_of(protocol, name);
    Some(ServicePort {
        port,
        target_port: Some(target.unwrap_or(port)),
        app_protocol,
        name: intern.text(name),
    })
}

impl Machine {
    /// Whatever the name of a host stands for.
    pub(crate) fn named(host: &Arc<str>) -> Self {
        Self {
            address: None,
            hostname: Some(host.clone()),
            ports: Box::default(),
            labels: Labels::default(),
            network: Arc::default(),
            locality: Arc::default(),
            weight: 1,
            service_account: "default".into(),
        }
    }

    pub(crate) fn read(spec: &Fields<'_>, intern: &mut Interner) -> Option<Self> {
        let text = spec.text("address").unwrap_or("");
        let address = text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if text.is_empty() || text.starts_with("unix://") {
            spec.report("address", Cause::Invalid, "needs an IP address or a host name");
            return None;
        }
        let mut ports = Vec::new();
        if let Some(by_name) = spec.fields("ports") {
            for name in by_name.names() {
                ports.extend(by_name.number(name).map(|number| (intern.text(name), number)));
            }
        }
        let mut labels = spec.pairs("labels");
        labels.sort_unstable();
        let locality = spec.text("locality").unwrap_or("");
        let mut parts = locality.split('/');
        let mut part = || intern.text(parts.next().unwrap_or(""));
        let locality = Locality { region: part(), zone: part(), subzone: part() };
        Some(Self {
            address,
            hostname: address.is_none().then(|| intern.text(text)),
            ports: ports.into(),
            labels: labels.iter().map(|(k, v)| (intern.text(k), intern.text(v))).collect(),
            network: intern.text(spec.text("network").unwrap_or("")),
            locality: Arc::new(locality),
            weight: spec.number("weight").unwrap_or(1),
            service_account: intern.text(spec.text("serviceAccount").unwrap_or("default")),
        })
    }
}
