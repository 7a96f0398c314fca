//! Round trips over the byte path in one thread: tunnel, TLS and copy, over loopback.

use std::hint::black_box;

use benches::micro::path::Path;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

#[global_allocator]
static ALLOCATOR: shared::allocator::Allocator = shared::allocator::Allocator;

fn round_trips(criterion: &mut Criterion) {
    shared::allocator::release_later();
    let runtime = Builder::new_current_thread().enable_all().build().expect("an event loop");
    let local = LocalSet::new();
    let mut connection = local.block_on(&runtime, async {
        let path = Path::open().await.expect("loopback and TLS work");
        let connection = path.connect().await.expect("the tunnel is accepted");
        // Its driver lives as long as the connection.
        std::mem::forget(path);
        connection
    });
    let mut group = criterion.benchmark_group("round_trip");
    for length in [1, 1 << 10, 64 << 10] {
        let (request, mut answer) = (vec![7; length], vec![0; length]);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::from_parameter(length), &length, |bencher, _| {
            bencher.iter(|| {
                let asked = connection.ask(black_box(&request), &mut answer);
                local.block_on(&runtime, asked).expect("the path holds");
            });
        });
    }
    group.finish();
}

criterion_group!(path, round_trips);
criterion_main!(path);
