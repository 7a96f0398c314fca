//! What it costs to find the rule of a request at 10, 1,000 and 5,000 routes of one service, and to
//! bring a change of one of them into force.
//!
//! Targets: a lookup that does not grow with the table; a change in force in less than 50 ms.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderName, HeaderValue, Request};
use shared::mesh::{
    Change, HeaderMatch, HttpMatch, PathMatch, Route, Service, ValueMatch, sample, writer,
};
use waypoint::router::{Routed, Router};

fn service() -> Service {
    sample::service("web", "ns")
}

/// Routes by exact path, by prefix, and by a header on one path.
fn route(number: u32) -> Route {
    let service = service().key;
    let everything = HttpMatch::everything();
    let one = match number % 3 {
        0 => {
            let path = PathMatch::Exact(format!("/exact/{number}").into());
            HttpMatch { path, ..everything }
        }
        1 => {
            let path = PathMatch::Prefix(format!("/prefix/{number}").into());
            HttpMatch { path, ..everything }
        }
        _ => {
            let value = ValueMatch::Exact(format!("{number}").into());
            let header = HeaderMatch { name: HeaderName::from_static("x-user"), value };
            HttpMatch { headers: [header].into(), ..everything }
        }
    };
    let rule = sample::rule(vec![one], &service);
    sample::route(&format!("r{number}"), "ns", &service, vec![rule])
}

fn router(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router");
    for size in [10, 1_000, 5_000] {
        let (mut writer, reader) = writer();
        writer.apply((0..size).map(|number| route(number).into()));
        writer.apply([service().into()]);
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

fn request(number: u32) -> http::request::Parts {
    let path = match number % 3 {
        0 => format!("/exact/{number}"),
        1 => format!("/prefix/{number}/and/more"),
        _ => "/any".to_owned(),
    };
    let user = HeaderValue::from(number);
    let request = Request::get(path).header("x-user", user).body(());
    request.expect("a request").into_parts().0
}

criterion_group!(benches, router);
criterion_main!(benches);
