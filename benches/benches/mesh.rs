//! What one change costs at 1,000, 10,000 and 100,000 workloads, and what lookups cost there.
//!
//! Target: one change published in less than 1 ms at 100,000 workloads (design D2).

use std::hint::black_box;

use benches::micro::mesh as scene;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use shared::mesh::sample;

fn mesh(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    for size in [1_000, 10_000, 100_000] {
        let (mut writer, reader) = scene::mesh(size);
        let mut round: u32 = 0;
        group.bench_function(BenchmarkId::new("publish one change", size), |bencher| {
            bencher.iter(|| {
                round = round.wrapping_add(1);
                scene::change(&mut writer, round, size);
            });
        });
        group.bench_function(BenchmarkId::new("find by address", size), |bencher| {
            let mesh = reader.load();
            bencher.iter(|| {
                round = round.wrapping_add(1);
                black_box(
                    mesh.workload_by_addr("", scene::address(round.wrapping_mul(7919) % size)),
                );
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
