//! What is counted: the scenes of the benchmarks of time (`micro`), each operation a fixed number of
//! times after one that is not counted.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use shared::authz::{Facts, Guarded, Inside, decide};
use shared::balance::{Config, Loads};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::Instant;
use waypoint::router::{Routed, Router};
use ztunnel::outbound::resolve::{Candidate, Endpoints, Query, Route, resolve};

use crate::micro::path::{Connection, Path, Sealed};
use crate::micro::{decision, mesh, router};

/// What can be counted.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// How many times it is done.
    pub(super) count: u32,
    /// Does it that many times.
    pub(super) perform: fn(u32) -> anyhow::Result<()>,
}

const fn one(name: &'static str, count: u32, perform: fn(u32) -> anyhow::Result<()>) -> Operation {
    Operation { name, count, perform }
}

/// All of it.
pub(super) const OPERATIONS: [Operation; 33] = [
    one("resolve: a pod", 1000, |count| resolving(decision::address(5_000), count)),
    one("resolve: outside the mesh", 1000, |count| resolving(IpAddr::from([8, 8, 8, 8]), count)),
    one("resolve: a service with 3 endpoints", 1000, |count| resolving(decision::vip(3), count)),
    one("resolve: a service with 100 endpoints", 100, |count| resolving(decision::vip(100), count)),
    one("resolve: a service with 1000 endpoints", 50, |count| {
        resolving(decision::vip(1000), count)
    }),
    one("order: 3 endpoints", 1000, |count| ordering(3, count)),
    one("order: 100 endpoints", 200, |count| ordering(100, count)),
    one("order: 1000 endpoints", 50, |count| ordering(1000, count)),
    one("decide: no policy", 1000, |count| deciding(0, count)),
    one("decide: 1 policy", 1000, |count| deciding(1, count)),
    one("decide: 10 policies", 1000, |count| deciding(10, count)),
    one("decide: 100 policies", 100, |count| deciding(100, count)),
    one("mesh of 1000: publish one change", 1000, |count| publishing(1_000, count)),
    one("mesh of 10000: publish one change", 1000, |count| publishing(10_000, count)),
    one("mesh of 100000: publish one change", 1000, |count| publishing(100_000, count)),
    one("mesh of 1000: find by address", 1000, |count| finding(1_000, count)),
    one("mesh of 10000: find by address", 1000, |count| finding(10_000, count)),
    one("mesh of 100000: find by address", 1000, |count| finding(100_000, count)),
    one("router of 10: find a rule", 1000, |count| routing(10, count)),
    one("router of 1000: find a rule", 1000, |count| routing(1_000, count)),
    one("router of 5000: find a rule", 1000, |count| routing(5_000, count)),
    one("tls: seal and open 1 B", 1000, |count| sealing(1, count)),
    one("tls: seal and open 1 KiB", 1000, |count| sealing(1 << 10, count)),
    one("tls: seal and open 16 KiB", 200, |count| sealing(16 << 10, count)),
    one("copy: round trip of 1 B", 200, |count| copying(1, count)),
    one("copy: round trip of 1 KiB", 200, |count| copying(1 << 10, count)),
    one("copy: round trip of 64 KiB", 100, |count| copying(64 << 10, count)),
    one("copy: round trip of 4 MiB", 5, |count| copying(4 << 20, count)),
    one("tunnel: open a connection", 100, opening),
    one("tunnel: round trip of 1 B", 200, |count| tunnelling(1, count)),
    one("tunnel: round trip of 1 KiB", 200, |count| tunnelling(1 << 10, count)),
    one("tunnel: round trip of 64 KiB", 50, |count| tunnelling(64 << 10, count)),
    one("tunnel: round trip of 4 MiB", 5, |count| tunnelling(4 << 20, count)),
];

/// Does it once, then `count` times within [`measured`].
fn perform(count: u32, operation: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    operation()?;
    measured(count, operation)
}

/// Callgrind counts what happens from the call of this function to its return; it knows it by name.
#[inline(never)]
fn measured(count: u32, operation: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    for _ in 0..count {
        operation()?;
    }
    Ok(())
}

fn resolving(ip: IpAddr, count: u32) -> anyhow::Result<()> {
    let (mesh, source) = (decision::mesh().load(), decision::workload(decision::WORKLOADS - 1));
    let destination = SocketAddr::new(ip, decision::PORT);
    let query = Query { source: &source, destination, draw: 7 };
    perform(count, &mut || {
        ensure!(black_box(resolve(&mesh, black_box(&query))).is_ok(), "resolve fails");
        Ok(())
    })
}

fn ordering(endpoints: u32, count: u32) -> anyhow::Result<()> {
    let (mesh, source) = (decision::mesh().load(), decision::workload(decision::WORKLOADS - 1));
    let destination = SocketAddr::new(decision::vip(endpoints), decision::PORT);
    let query = Query { source: &source, destination, draw: 7 };
    let Ok(Route::Endpoints(Endpoints { candidates, .. })) = resolve(&mesh, &query) else {
        bail!("the service has no endpoints");
    };
    let (loads, mut random) = (Loads::new(Config::default()), Rng::with_seed(7));
    let now = Instant::now();
    // Copies are made before, and one more for what is not counted.
    let mut copies = vec![candidates; count as usize + 1];
    perform(count, &mut || {
        let all = copies.pop().context("a copy for each")?;
        let order = loads.order(
            all,
            |one: &Candidate<'_>| (one.workload, one.port),
            decision::TRIES,
            &mut random,
            now,
        );
        black_box(order);
        Ok(())
    })
}

fn deciding(policies: u32, count: u32) -> anyhow::Result<()> {
    let (mesh, workload) = (decision::guarded(policies).load(), decision::workload(7));
    let facts = Facts {
        guarded: Guarded::Workload(&workload),
        peer: Some(&workload.identity),
        source_ip: decision::address(8),
        destination_addr: SocketAddr::new(decision::address(7), 8080),
        inside: Inside::Unseen,
    };
    perform(count, &mut || {
        ensure!(black_box(decide(&mesh, black_box(&facts))).is_ok(), "the caller is denied");
        Ok(())
    })
}

fn publishing(size: u32, count: u32) -> anyhow::Result<()> {
    let (mut writer, _reader) = mesh::mesh(size);
    let mut round = 0;
    perform(count, &mut || {
        round += 1;
        mesh::change(&mut writer, round, size);
        Ok(())
    })
}

fn finding(size: u32, count: u32) -> anyhow::Result<()> {
    let (_writer, reader) = mesh::mesh(size);
    let (mesh, mut round) = (reader.load(), 0_u32);
    perform(count, &mut || {
        round += 1;
        let address = mesh::address(round.wrapping_mul(7919) % size);
        ensure!(black_box(mesh.workload_by_addr("", address)).is_some(), "it is not there");
        Ok(())
    })
}

fn routing(size: u32, count: u32) -> anyhow::Result<()> {
    let (_writer, reader) = router::mesh(size);
    let table = Router::default().table(&reader.load(), &router::service());
    let requests: Vec<_> = (0..size).map(router::request).collect();
    let mut number = 0;
    perform(count, &mut || {
        number = (number + 7919) % size;
        let routed = table.route(80, Some("ns"), &requests[number as usize]);
        ensure!(matches!(black_box(routed), Routed::Rule(_)), "no rule is found");
        Ok(())
    })
}

fn sealing(length: usize, count: u32) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut sealed = runtime.block_on(Sealed::open())?;
    let (bytes, mut into) = (vec![7; length], vec![0; length]);
    perform(count, &mut || runtime.block_on(sealed.carry(&bytes, &mut into)))
}

fn copying(length: usize, count: u32) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let mut connection = local.block_on(&runtime, Connection::plain())?;
    let (request, mut answer) = (vec![7; length], vec![0; length]);
    perform(count, &mut || local.block_on(&runtime, connection.ask(&request, &mut answer)))
}

fn tunnelling(length: usize, count: u32) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let path = local.block_on(&runtime, Path::open())?;
    let mut connection = local.block_on(&runtime, path.connect())?;
    let (request, mut answer) = (vec![7; length], vec![0; length]);
    perform(count, &mut || local.block_on(&runtime, connection.ask(&request, &mut answer)))
}

fn opening(count: u32) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let path = local.block_on(&runtime, Path::open())?;
    perform(count, &mut || {
        local.block_on(&runtime, async {
            // With one byte there and back both ends of the tunnel have taken part.
            path.connect().await?.ask(&[7], &mut [0]).await
        })
    })
}
