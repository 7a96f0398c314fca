//! `kind: Gateway` of class `istio-waypoint`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::Head;
use crate::feed::verdict::Cause;

/// A waypoint.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    /// Where it is, by `status.addresses`: a host name before an address.
    pub(crate) hostname: Option<Arc<str>>,
    pub(crate) address: Option<IpAddr>,
    /// Port of its HBONE listener.
    pub(crate) port: u16,
    pub(crate) serves: WaypointFor,
    /// Applications are told who their client is, in `x-forwarded-client-cert`.
    pub(crate) tells_client: bool,
}

/// `istio.io/waypoint-for`: which traffic it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaypointFor {
    pub(crate) services: bool,
    pub(crate) workloads: bool,
}

impl Gateway {
    pub(crate) fn read(root: &Fields<'_>, head: &Head, intern: &mut Interner) -> Option<Self> {
        let spec = root.fields("spec")?;
        let class = spec.text("gatewayClassName").unwrap_or("");
        if class != "istio-waypoint" {
            root.foreign(&["spec", "status"]);
            let reason = format!("gateway class \"{class}\" is not supported yet");
            spec.report("gatewayClassName", Cause::Unsupported, reason);
            return None;
        }
        spec.foreign(&["addresses", "infrastructure"]);
        let mut port = 15008;
        for listener in spec.each("listeners") {
            listener.foreign(&["name", "allowedRoutes"]);
            match (listener.text("protocol"), listener.number("port")) {
                (Some("HBONE"), Some(number)) => port = number,
                _ => listener.report("", Cause::Unsupported, "a waypoint listens for HBONE only"),
            }
        }
        let (mut hostname, mut address) = (None, None);
        if let Some(status) = root.fields("status") {
            status.foreign(&["conditions", "listeners", "attachedListenerSets"]);
            for one in status.each("addresses") {
                match one.text("type") {
                    Some("Hostname") => hostname = one.text("value").map(|v| intern.text(v)),
                    _ => {
                        let parsed = one.parsed::<IpAddr>("value");
                        address = address.or(parsed);
                    }
                }
            }
        }
        let serves = match head.label("istio.io/waypoint-for").map(|value| &**value) {
            None | Some("service") => WaypointFor { services: true, workloads: false },
            Some("workload") => WaypointFor { services: false, workloads: true },
            Some("all") => WaypointFor { services: true, workloads: true },
            Some("none") => WaypointFor { services: false, workloads: false },
            Some(_) => {
                let reason = "istio.io/waypoint-for must be service, workload, all or none";
                root.report("metadata", Cause::Invalid, reason);
                return None;
            }
        };
        let tells_client = head.is_annotated("ambient.istio.io/xfcc-include-client-identity");
        Some(Self { hostname, address, port, serves, tells_client })
    }
}
