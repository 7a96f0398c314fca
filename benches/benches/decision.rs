//! What a connection waits for before its first packet: where it goes, in which order endpoints are
//! tried, whether it may. Pure functions, here over a mesh of 10,000 workloads.
//!
//! The first two grow with the endpoints of the service, the last with the policies that apply.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use shared::authz::{
    Action, Facts, Group, Guarded, Inside, Match, Policy, Rule, Scope, StringMatch, decide,
};
use shared::balance::{Config, Loads};
use shared::mesh::{AppProtocol, NetworkAddr, Service, ServicePort, Workload, sample, writer};
use tokio::time::Instant;
use ztunnel::outbound::resolve::{Candidate, Endpoints, Query, Route, resolve};

const WORKLOADS: u32 = 10_000;
/// Services, named after how many endpoints they have.
const ENDPOINTS: [u32; 3] = [3, 100, 1_000];
const PORT: u16 = 80;
/// What ztunnel tries at most.
const TRIES: usize = 3;

fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

fn vip(endpoints: u32) -> IpAddr {
    IpAddr::from((0x0b00_0000 + endpoints).to_be_bytes())
}

fn workload(number: u32) -> Workload {
    let mut workload = sample::workload(&format!("pod-{number}"), "ns");
    workload.addresses = [address(number)].into();
    let own = ENDPOINTS.into_iter().filter(|endpoints| number < *endpoints);
    let key = |endpoints| sample::service_key(&format!("with-{endpoints}"), "ns");
    workload.services = own.map(|one| (key(one), [(PORT, 8080)].into())).collect();
    workload
}

fn service(endpoints: u32) -> Service {
    let mut service = sample::service(&format!("with-{endpoints}"), "ns");
    service.vips = [NetworkAddr { network: "".into(), address: vip(endpoints) }].into();
    let target_port = Some(8080);
    let app_protocol = AppProtocol::Unknown;
    service.ports = [ServicePort { port: PORT, target_port, app_protocol, name: "".into() }].into();
    service
}

fn resolving(criterion: &mut Criterion) {
    let (mut writer, reader) = writer();
    writer.apply((0..WORKLOADS).map(|number| workload(number).into()));
    writer.apply(ENDPOINTS.map(|endpoints| service(endpoints).into()));
    let mesh = reader.load();
    let source = workload(WORKLOADS - 1);
    let query = |ip| Query { source: &source, destination: SocketAddr::new(ip, PORT), draw: 7 };

    let mut group = criterion.benchmark_group("resolve");
    for (name, ip) in [("a pod", address(WORKLOADS / 2)), ("nobody", IpAddr::from([8, 8, 8, 8]))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(resolve(&mesh, &query(ip)).is_ok()));
        });
    }
    for endpoints in ENDPOINTS {
        group.bench_function(BenchmarkId::new("a service", endpoints), |bencher| {
            bencher.iter(|| black_box(resolve(&mesh, &query(vip(endpoints))).is_ok()));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("order");
    for endpoints in ENDPOINTS {
        let query = query(vip(endpoints));
        let Ok(Route::Endpoints(Endpoints { candidates, .. })) = resolve(&mesh, &query) else {
            panic!("the service has endpoints");
        };
        assert_eq!(candidates.len(), endpoints as usize);
        let loads = Loads::new(Config::default());
        let (mut random, now) = (Rng::with_seed(7), Instant::now());
        group.bench_function(BenchmarkId::from_parameter(endpoints), |bencher| {
            bencher.iter_batched(
                || candidates.clone(),
                |all| {
                    loads.order(
                        all,
                        |one: &Candidate<'_>| (one.workload, one.port),
                        TRIES,
                        &mut random,
                        now,
                    )
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
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

fn deciding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for policies in [0, 1, 10, 100] {
        let (mut writer, reader) = writer();
        writer.apply((0..policies).map(|number| policy(number, policies).into()));
        let (mesh, workload) = (reader.load(), workload(7));
        let facts = Facts {
            guarded: Guarded::Workload(&workload),
            peer: Some(&workload.identity),
            source_ip: address(8),
            destination_addr: SocketAddr::new(address(7), 8080),
            inside: Inside::Unseen,
        };
        assert!(decide(&mesh, &facts).is_ok());
        group.bench_function(BenchmarkId::new("policies", policies), |bencher| {
            bencher.iter(|| black_box(decide(&mesh, &facts).is_ok()));
        });
    }
    group.finish();
}

criterion_group!(decision, resolving, deciding);
criterion_main!(decision);
