//! What it costs to find the rule of a request at 10, 1,000 and 5,000 routes of one service, and to
//! bring a change of one of them into force.
//!
//! Targets: a lookup that does not grow with the table; a change in force in less than 50 ms.

use std::hint::black_box;

use benches::micro::router::{mesh, request, route, service};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Request;
use shared::mesh::Change;
use waypoint::router::{Routed, Router};

fn router(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router");
    for size in [10, 1_000, 5_000] {
        let (mut writer, reader) = mesh(size);
        let (router, service) = (Router::default(), service());
        let mut number = 0;
        let (mesh, table) = (reader.load(), router.table(&reader.load(), &service));
        group.bench_function(BenchmarkId::new("find a rule", size), |bencher| {
            let requests: Vec<_> = (0..size).map(request).collect();
            bencher.iter(|| {
                number = (number + 7919) % size;
                let request = &requests[number as usize];
                let routed = table.route(80, Some("ns"), request);
                assert!(matches!(black_box(routed), Routed::Rule(_)));
            });
        });
        group.bench_function(BenchmarkId::new("find that there is none", size), |bencher| {
            let request = Request::get("/none/of/these").header("x-user", "nobody");
            let request = request.body(()).expect("a request").into_parts().0;
            bencher.iter(|| black_box(table.route(80, Some("ns"), &request)));
        });
        group.bench_function(BenchmarkId::new("ask for the table", size), |bencher| {
            bencher.iter(|| black_box(router.table(&mesh, &service)));
        });
        group.bench_function(BenchmarkId::new("change to in force", size), |bencher| {
            bencher.iter(|| {
                number = number.wrapping_add(1);
                let mut changed = route(0);
                changed.created = format!("{number}").into();
                writer.apply([Change::from(changed)]);
                black_box(router.table(&reader.load(), &service));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, router);
criterion_main!(benches);
