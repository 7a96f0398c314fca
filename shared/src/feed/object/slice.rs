//! `kind: EndpointSlice`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::Head;
use crate::feed::verdict::Cause;

/// Some of the endpoints of a service.
#[derive(Debug, Clone)]
pub(crate) struct EndpointSlice {
    /// The service of the same namespace.
    pub(crate) service: Arc<str>,
    pub(crate) endpoints: Box<[SliceEndpoint]>,
    /// Name and number.
    pub(crate) ports: Box<[(Arc<str>, u16)]>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone)]
pub(crate) struct SliceEndpoint {
    pub(crate) addresses: Box<[IpAddr]>,
    /// The pod of the same namespace, when it is one.
    pub(crate) pod: Option<Arc<str>>,
    pub(crate) ready: bool,
    pub(crate) node: Arc<str>,
}

impl EndpointSlice {
    pub(crate) fn read(root: &Fields<'_>, head: &Head, intern: &mut Interner) -> Option<Self> {
        let Some(service) = head.label("kubernetes.io/service-name").cloned() else {
            let reason = "no label kubernetes.io/service-name, so it belongs to no service";
            root.report("metadata", Cause::Invalid, reason);
            return None;
        };
        let (endpoints, ports) = (root.each("endpoints"), root.each("ports"));
        let endpoints =
            endpoints.iter().map(|fields| SliceEndpoint::read(fields, intern)).collect();
        let ports = ports.iter().filter_map(|fields| port(fields, intern)).collect();
        if root.text("addressType") == Some("FQDN") {
            root.report("addressType", Cause::Unsupported, "endpoints must be addresses");
            return None;
        }
        Some(Self { service, endpoints, ports })
    }
}

fn port(fields: &Fields<'_>, intern: &mut Interner) -> Option<(Arc<str>, u16)> {
    fields.foreign(&["appProtocol"]);
    let name = intern.text(fields.text("name").unwrap_or(""));
    let is_tcp = fields.text("protocol").is_none_or(|protocol| protocol == "TCP");
    let number = fields.number("port")?;
    is_tcp.then_some((name, number))
}

impl SliceEndpoint {
    fn read(fields: &Fields<'_>, intern: &mut Interner) -> Self {
        fields.foreign(&["deprecatedTopology", "hints", "hostname", "zone"]);
        let parse = |text: &str| text.parse().map_err(|_| "is no IP address".to_owned());
        let addresses: Vec<IpAddr> = fields.parsed_list("addresses", parse);
        let mut ready = true;
        if let Some(conditions) = fields.fields("conditions") {
            conditions.foreign(&["serving"]);
            ready = conditions.flag("ready").unwrap_or(true)
                && !conditions.flag("terminating").unwrap_or(false);
        }
        let target = fields.fields("targetRef");
        let pod = target.and_then(|target| {
            target.foreign(&["namespace", "uid", "apiVersion", "fieldPath", "resourceVersion"]);
            let (kind, name) = (target.text("kind"), target.text("name"));
            name.filter(|_| kind == Some("Pod")).map(|name| intern.text(name))
        });
        Self {
            addresses: addresses.iter().map(IpAddr::to_canonical).collect(),
            pod,
            ready,
            node: intern.text(fields.text("nodeName").unwrap_or("")),
        }
    }
}
