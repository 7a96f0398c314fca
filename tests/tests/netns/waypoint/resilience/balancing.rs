//! `loadBalancer`, and what holds without one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use harness::asking::{Answer, Ask};
use harness::backend::Backend;
use harness::eventually::eventually;
use harness::wire::Wire;

use super::super::super::suite::Case;
use super::super::lab::Lab;
use super::apply;
use super::fields::answers;
use super::fleet::Fleet;

pub(super) const CASES: &[Case] = &[
    ("waypoint::resilience::balancing::one_that_is_ten_times_slower_gets_little", &[], slow),
    ("waypoint::resilience::balancing::turns_are_taken_evenly", &[], round_robin),
    ("waypoint::resilience::balancing::the_same_key_goes_to_the_same_endpoint", &[], keys),
    ("waypoint::resilience::balancing::a_cookie_is_made_and_kept", &[], cookie),
    ("waypoint::resilience::balancing::who_is_near_comes_first", &[], near),
    ("waypoint::resilience::balancing::requests_are_parted_between_places", &[], distribute),
    ("waypoint::resilience::balancing::where_nobody_listens_is_tried_once", &[], dead),
];

/// Spec: one of five takes ten times as long; after 5 s it gets at most a tenth of the requests.
fn slow() -> anyhow::Result<()> {
    let fleet = Fleet::new("balancing-slow")?;
    fleet.members.iter().for_each(|member| member.dawdles(5));
    fleet.members[1].dawdles(50);
    let report = fleet.load(200, 4.0, &["--warm-up", "5"])?;
    ensure!(report.failed() == 0, "{report:?}");
    let slow = report.servers.get(&fleet.members[1].name).copied().unwrap_or_default();
    let all: u64 = report.servers.values().sum();
    ensure!(slow * 10 <= all, "{slow} of {all}: {:?}", report.servers);
    Ok(())
}

fn round_robin() -> anyhow::Result<()> {
    let fleet = Fleet::new("balancing-turns")?;
    apply(&fleet.scene, "fleet", "{loadBalancer: {simple: ROUND_ROBIN}}")?;
    let report = fleet.load(500, 1.0, &[])?;
    ensure!(report.failed() == 0, "{report:?}");
    // Each worker takes turns of its own, from anywhere.
    let spread = report.servers.values().max().zip(report.servers.values().min());
    let (most, least) = spread.context("nobody answered")?;
    ensure!(report.servers.len() == 5 && most - least <= 4, "{:?}", report.servers);
    apply(&fleet.scene, "fleet", "{loadBalancer: {simple: RANDOM}}")?;
    let report = fleet.load(500, 1.0, &[])?;
    // Five deviations of a fair draw.
    let fair = report.servers.values().all(|count| (55..=145).contains(count));
    ensure!(report.servers.len() == 5 && fair, "{:?}", report.servers);
    Ok(())
}

fn server(answer: &Answer) -> anyhow::Result<String> {
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.header("server").context("nobody says who answered")?.to_owned())
}

/// Who answers requests with each of 40 keys, which has to be the same each time, and each of so many
/// for some of them.
fn owners(
    fleet: &Fleet,
    count: usize,
    ask: impl Fn(u32) -> Ask,
) -> anyhow::Result<BTreeMap<u32, String>> {
    let mut owners = BTreeMap::new();
    for key in 0..40 {
        let mut all = BTreeSet::new();
        for _ in 0..4 {
            all.insert(server(&ask(key).from(&fleet.scene.client)?)?);
        }
        ensure!(all.len() == 1, "key {key} went to {all:?}");
        owners.extend(all.into_iter().map(|owner| (key, owner)));
    }
    let used: BTreeSet<_> = owners.values().collect();
    // Of a thousand sets of addresses one would leave somebody out.
    ensure!(used.len() == count, "40 keys went to {used:?} alone");
    Ok(owners)
}

fn keys() -> anyhow::Result<()> {
    let fleet = Fleet::new("balancing-keys")?;
    let hash = |key: &str| format!("{{loadBalancer: {{consistentHash: {{{key}}}}}}}");
    apply(&fleet.scene, "fleet", &hash("httpHeaderName: x-user"))?;
    let by_header = |key: u32| Ask::get(Fleet::at(), "/").header("X-User", &key.to_string());
    let before = owners(&fleet, 5, by_header)?;
    // Without the header the load decides.
    eventually(super::SOON, "all five answer", || -> anyhow::Result<()> {
        let report = fleet.load(200, 1.0, &[])?;
        ensure!(report.failed() == 0 && report.servers.len() == 5, "{:?}", report.servers);
        Ok(())
    })?;
    // One that leaves takes its own keys along and no other.
    let leaves = &fleet.members[3];
    let mesh = fleet.scene.cluster.mesh();
    mesh.write(&leaves.pod.file(), &leaves.pod.yaml().replace("\"True\"", "\"False\""))?;
    eventually(super::SOON, "it has left", || -> anyhow::Result<()> {
        let report = fleet.load(200, 0.3, &[])?;
        ensure!(!report.servers.contains_key(&leaves.name), "{:?}", report.servers);
        Ok(())
    })?;
    let after = owners(&fleet, 4, by_header)?;
    for (key, owner) in before.iter().filter(|(_, owner)| **owner != leaves.name) {
        ensure!(after[key] == *owner, "key {key} moved from {owner} to {}", after[key]);
    }
    for (policy, path) in [
        (hash("httpQueryParameterName: user, maglev: {tableSize: 1009}"), "/?a=1&user="),
        (hash("httpQueryParameterName: user"), "/?user="),
    ] {
        apply(&fleet.scene, "fleet", &policy)?;
        owners(&fleet, 4, |key| Ask::get(Fleet::at(), &format!("{path}{key}")))?;
    }
    apply(&fleet.scene, "fleet", &hash("useSourceIp: true"))?;
    for pod in [&fleet.scene.client, &fleet.scene.v2] {
        let mut all = BTreeSet::new();
        for _ in 0..10 {
            all.insert(server(&Ask::get(Fleet::at(), "/").from(pod)?)?);
        }
        ensure!(all.len() == 1, "{} went to {all:?}", pod.name());
    }
    Ok(())
}

fn cookie() -> anyhow::Result<()> {
    let fleet = Fleet::new("balancing-cookie")?;
    let policy = "{loadBalancer: {consistentHash: {httpCookie: {name: user, path: /, ttl: 60s}}}}";
    apply(&fleet.scene, "fleet", policy)?;
    let mut owners = BTreeSet::new();
    for _ in 0..40 {
        let first = Ask::get(Fleet::at(), "/").from(&fleet.scene.client)?;
        let owner = server(&first)?;
        let made = first.header("set-cookie").context("no cookie")?;
        let (pair, rest) = made.split_once("; ").context("no attributes")?;
        ensure!(rest == "Max-Age=60; Path=/; HttpOnly", "{made}");
        for _ in 0..3 {
            let ask = Ask::get(Fleet::at(), "/").header("Cookie", &format!("other=1; {pair}"));
            let answer = ask.from(&fleet.scene.client)?;
            ensure!(server(&answer)? == owner, "{answer:?}, not {owner}");
            ensure!(answer.header("set-cookie").is_none(), "{answer:?}");
        }
        owners.insert(owner);
    }
    ensure!(owners.len() == 5, "40 clients went to {owners:?} alone");
    Ok(())
}

/// Puts the waypoint and three members in zone a of region r, the others in zone b.
fn zones(fleet: &Fleet) -> anyhow::Result<()> {
    let node = |pod: &harness::pod::Pod, zone: &str| {
        let name = pod.node().name();
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: \
             {{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: {zone}}}}}\n---\n"
        )
    };
    let nodes = [node(&fleet.scene.v1, "a"), node(&fleet.scene.client, "b")].concat();
    Ok(fleet.scene.cluster.mesh().write("nodes.yaml", &nodes)?)
}

/// The nearest get a fifth, a farther zone the rest, and a share that nobody is there for goes to others.
fn distribute() -> anyhow::Result<()> {
    let fleet = Fleet::new("balancing-distribute")?;
    zones(&fleet)?;
    let to = |to: &str| {
        format!(
            "{{loadBalancer: {{localityLbSetting: {{distribute: [{{from: r/a, to: {{{to}}}}}]}}}}}}"
        )
    };
    apply(&fleet.scene, "fleet", &to("r/a/*: 20, r/b: 80"))?;
    eventually(super::SOON, "a fifth goes to the nearest", || -> anyhow::Result<()> {
        let report = fleet.load(300, 1.0, &[])?;
        let near =
            |(name, _): &(&String, &u64)| fleet.members[..3].iter().any(|one| one.name == **name);
        let own: u64 = report.servers.iter().filter(near).map(|(_, count)| count).sum();
        let all: u64 = report.servers.values().sum();
        // Six deviations of a fair draw of 300.
        ensure!(report.failed() == 0 && all > 200, "{report:?}");
        ensure!((6..=34).contains(&(own * 100 / all)), "{own} of {all}: {:?}", report.servers);
        Ok(())
    })?;
    apply(&fleet.scene, "fleet", &to("r/b/*: 99, elsewhere: 1"))?;
    let report = fleet.load(300, 1.0, &[])?;
    let far: BTreeSet<_> = fleet.members[3..].iter().map(|one| &one.name).collect();
    ensure!(
        report.failed() == 0 && report.servers.keys().collect::<BTreeSet<_>>() == far,
        "{report:?}"
    );
    Ok(())
}

fn near() -> anyhow::Result<()> {
    let fleet = Fleet::new("balancing-near")?;
    zones(&fleet)?;
    let outliers = "outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 60s, \
                    maxEjectionPercent: 100}";
    apply(&fleet.scene, "fleet", &format!("{{{outliers}}}"))?;
    let used = |wanted: &[usize]| {
        let wanted: BTreeSet<_> = wanted.iter().map(|at| &fleet.members[*at].name).collect();
        eventually(super::SOON, "they and no others answer", || -> anyhow::Result<()> {
            let report = fleet.load(200, 0.5, &[])?;
            let servers: BTreeSet<_> = report.servers.keys().collect();
            ensure!(servers == wanted, "{:?}", report.servers);
            Ok(())
        })
    };
    used(&[0, 1, 2])?;
    fleet.members[..3].iter().for_each(|member| member.fails(100));
    used(&[3, 4])?;
    fleet.members[..3].iter().for_each(|member| member.fails(0));
    let off = format!("{{{outliers}, loadBalancer: {{localityLbSetting: {{enabled: false}}}}}}");
    apply(&fleet.scene, "fleet", &off)?;
    used(&[3, 4])
}

/// One of two has no application on this port; its proxy says so, and it is not asked again for a second,
/// then for two. A node's log tells each try.
fn dead() -> anyhow::Result<()> {
    let lab = Lab::new("balancing-dead")?;
    let _alive = Backend::start(&lab.scene.v2, 8001, answers)?;
    let at = SocketAddr::from(([10, 96, 0, 22], 80));
    let mut wire = Wire::open(&lab.scene.client, at)?;
    let began = Instant::now();
    for number in 0..40 {
        wire.say("GET / HTTP/1.1\r\nHost: both\r\n\r\n")?;
        let answer = wire.answer("GET")?;
        ensure!(answer.status == 200, "{number}: {answer:?}");
    }
    let tries = lab.scene.far_ztunnel.caused("APPLICATION_CONNECT_FAILED").len() as u32;
    // One connection is one worker's. Of 40 requests half would come to it first.
    let most = 1 + (began.elapsed().as_secs() + 1).ilog2();
    ensure!((1..=most).contains(&tries), "{tries} tries in {:?}", began.elapsed());
    Ok(())
}
