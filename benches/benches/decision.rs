//! What a connection waits for before its first packet: where it goes, in which order endpoints are
//! tried, whether it may. Pure functions, here over a mesh of 10,000 workloads.
//!
//! The first two grow with the endpoints of the service, the last with the policies that apply.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use benches::micro::decision::{
    ENDPOINTS, PORT, TRIES, WORKLOADS, address, guarded, mesh, vip, workload,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use shared::authz::{Facts, Guarded, Inside, decide};
use shared::balance::{Config, Loads};
use tokio::time::Instant;
use ztunnel::outbound::resolve::{Candidate, Endpoints, Query, Route, resolve};

fn resolving(criterion: &mut Criterion) {
    let mesh = mesh().load();
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

fn deciding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for policies in [0, 1, 10, 100] {
        let (mesh, workload) = (guarded(policies).load(), workload(7));
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
