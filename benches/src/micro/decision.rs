//! A mesh of 10,000 workloads, services of several sizes, and policies that apply to a workload.

use std::net::IpAddr;

use shared::authz::{Action, Group, Match, Policy, Rule, Scope, StringMatch};
use shared::mesh::{
    AppProtocol, NetworkAddr, Reader, Service, ServicePort, Workload, sample, writer,
};

/// In the mesh.
pub const WORKLOADS: u32 = 10_000;
/// Services, named after how many endpoints they have.
pub const ENDPOINTS: [u32; 3] = [3, 100, 1_000];
/// Of every service.
pub const PORT: u16 = 80;
/// What ztunnel tries at most.
pub const TRIES: usize = 3;

/// Of a workload.
pub fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

/// Of a service.
pub fn vip(endpoints: u32) -> IpAddr {
    IpAddr::from((0x0b00_0000 + endpoints).to_be_bytes())
}

/// Backs the services that have more endpoints than its number.
pub fn workload(number: u32) -> Workload {
    let mut workload = sample::workload(&format!("pod-{number}"), "ns");
    workload.addresses = [address(number)].into();
    let own = ENDPOINTS.into_iter().filter(|endpoints| number < *endpoints);
    let key = |endpoints| sample::service_key(&format!("with-{endpoints}"), "ns");
    workload.services = own.map(|one| (key(one), [(PORT, 8080)].into())).collect();
    workload
}

/// Named after its endpoints.
pub fn service(endpoints: u32) -> Service {
    let mut service = sample::service(&format!("with-{endpoints}"), "ns");
    service.vips = [NetworkAddr { network: "".into(), address: vip(endpoints) }].into();
    let target_port = Some(8080);
    let app_protocol = AppProtocol::Unknown;
    service.ports = [ServicePort { port: PORT, target_port, app_protocol, name: "".into() }].into();
    service
}

/// All of them.
pub fn mesh() -> Reader {
    let (mut writer, reader) = writer();
    writer.apply((0..WORKLOADS).map(|number| workload(number).into()));
    writer.apply(ENDPOINTS.map(|endpoints| service(endpoints).into()));
    reader
}

/// A mesh with nothing but that many policies.
pub fn guarded(policies: u32) -> Reader {
    let (mut writer, reader) = writer();
    writer.apply((0..policies).map(|number| policy(number, policies).into()));
    reader
}

/// Allows one principal that is not the caller; the last policy allows the caller.
fn policy(number: u32, of: u32) -> Policy {
    let account = if number + 1 == of { "default" } else { "other" };
    let principal = format!("cluster.local/ns/ns/sa/{account}").into();
    let one = Match { principals: vec![StringMatch::Exact(principal)], ..Match::default() };
    Policy {
        key: sample::policy_key(&format!("policy-{number}"), "ns"),
        scope: Scope::Namespace,
        targets: Box::default(),
        action: Action::Allow,
        dry_run: false,
        groups: vec![Group { rules: vec![Rule { matches: vec![one] }] }],
    }
}
