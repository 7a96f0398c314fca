//! What one change costs at 1,000, 10,000 and 100,000 workloads, and what lookups cost there.
//!
//! Target: one change published in less than 1 ms at 100,000 workloads (design D2).

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use shared::mesh::{Health, Workload, sample, writer};

fn workload(number: u32) -> Workload {
    let mut workload = sample::workload(&format!("pod-{number}"), "ns");
    workload.addresses = [address(number)].into();
    let service = sample::service_key(&format!("s{}", number % 500), "ns");
    workload.services = [(service, [(80, 8080)].into())].into();
    workload
}

fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

fn mesh(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    for size in [1_000, 10_000, 100_000] {
        let (mut writer, reader) = writer();
        writer.apply((0..size).map(|number| workload(number).into()));
        writer.apply((0..500).map(|number| sample::service(&format!("s{number}"), "ns").into()));
        let mut round: u32 = 0;
        group.bench_function(BenchmarkId::new("publish one change", size), |bencher| {
            bencher.iter(|| {
                round = round.wrapping_add(1);
                let mut changed = workload(round.wrapping_mul(7919) % size);
                changed.health =
                    if round.is_multiple_of(2) { Health::Healthy } else { Health::Unhealthy };
                writer.apply([changed.into()]);
            });
        });
        group.bench_function(BenchmarkId::new("find by address", size), |bencher| {
            let mesh = reader.load();
            bencher.iter(|| {
                round = round.wrapping_add(1);
                black_box(mesh.workload_by_addr("", address(round.wrapping_mul(7919) % size)));
            });
        });
        group.bench_function(
            BenchmarkId::new("walk the endpoints of a service", size),
            |bencher| {
                let (mesh, key) = (reader.load(), sample::service_key("s7", "ns"));
                bencher.iter(|| black_box(mesh.endpoints(&key).count()));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, mesh);
criterion_main!(benches);
