//! Three hops, each of which repeats what fails, and half of the leaves dead: attempts do not multiply.

use std::net::SocketAddr;

use anyhow::ensure;
use harness::asking::Ask;
use harness::backend::{Backend, Guest};
use harness::netns::NetNs;
use harness::pod::PodSpec;

use super::super::suite::{Case, times};
use super::lab::Lab;
use super::mesh_profile::route as route_of;

pub(crate) const CASES: &[Case] =
    &[("waypoint::storm::half_of_the_leaves_die_and_nothing_multiplies", &[], storm)];

const RELAY: &str = "apiVersion: v1
kind: Service
metadata:
  name: relay
  namespace: shop
spec:
  clusterIP: 10.96.0.40
  selector: { app: relay }
  ports:
  - { name: http-first, port: 81, targetPort: 8001 }
  - { name: http-second, port: 82, targetPort: 8002 }
";

/// 20 % and nothing more: the tests are over before the usual minimum is spent.
fn policy(service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata:\n  \
         name: {service}\n  namespace: shop\nspec:\n  \
         targetRefs: [{{group: \"\", kind: Service, name: {service}}}]\n  \
         retryConstraint: {{budget: {{percent: 20}}, minRetryRate: {{count: 0}}}}\n---\n"
    )
}

fn storm() -> anyhow::Result<()> {
    let wanted = times("CULVERT_TEST_REQUESTS", 500)?;
    let lab = Lab::new("storm")?;
    let scene = &lab.scene;
    // Not beside a leaf, whose pod would seem to have much to do.
    scene.cluster.mesh().write("relay.yaml", RELAY)?;
    let spec = PodSpec::new("relay").namespace("shop");
    let relays = scene.cluster.pod(scene.v1.node(), spec)?;
    scene.far_ztunnel.serves(&relays)?;
    let at = |address: [u8; 4], port| SocketAddr::from((address, port));
    let (first, second) = (at([10, 96, 0, 40], 81), at([10, 96, 0, 40], 82));
    let leaf = at([10, 96, 0, 22], 80);
    let (one, other) = (relays.netns().another()?, relays.netns().another()?);
    let _hops = [
        Backend::start(&relays, 8001, move |guest| relay(guest, &one, second))?,
        Backend::start(&relays, 8002, move |guest| relay(guest, &other, leaf))?,
    ];
    let dead = Backend::start(&lab.scene.v1, 8001, |guest| answer(guest, "503 Dead"))?;
    let alive = Backend::start(&lab.scene.v2, 8001, |guest| answer(guest, "200 OK"))?;
    let route = |service: &str, port: u16| {
        let rules = format!(
            "  - retry: {{codes: [500, 502, 503, 504], attempts: 2, backoff: 1ms}}\n    \
             timeouts: {{request: 20s}}\n    backendRefs: [{{name: {service}, port: {port}}}]"
        );
        let parent =
            format!("group: \"\"\n    kind: Service\n    name: {service}\n    port: {port}");
        route_of("HTTPRoute", "shop", &format!("{service}-{port}"), &parent, &rules)
    };
    let routes = [route("relay", 81), route("relay", 82), route("both", 80)].concat();
    let yaml = [routes, policy("relay"), policy("both")].concat();
    scene.route(&yaml, |scene| {
        let answer = Ask::get(leaf, "/").from(&scene.client)?;
        let given_up = answer.header("proxy-status").unwrap_or_default();
        ensure!(given_up.contains("BUDGET") || answer.status == 200, "{answer:?}");
        ensure!(answer.header("x-told").is_some(), "{answer:?}");
        Ok(())
    })?;
    let before = dead.heard().len() + alive.heard().len();
    let mut good = 0;
    for number in 0..wanted {
        let ask = Ask::get(first, &format!("/{number}"));
        good += usize::from(ask.from(&scene.client)?.status == 200);
    }
    let attempts = dead.heard().len() + alive.heard().len() - before;
    eprintln!("{wanted} requests, {attempts} attempts at the leaves, {good} answered 200");
    ensure!(dead.heard().len() * 4 > wanted, "the dead leaf was hardly asked");
    ensure!(attempts * 10 <= wanted * 12, "{attempts} attempts for {wanted} requests");
    ensure!(good * 2 > wanted, "{good} of {wanted} answered");
    Ok(())
}

fn answer(guest: &mut Guest, status: &str) -> std::io::Result<()> {
    while guest.request()?.is_some() {
        guest.say(format!("HTTP/1.1 {status}\r\nx-told: leaf\r\nContent-Length: 0\r\n\r\n"))?;
    }
    Ok(())
}

/// An application that asks the next one, and passes on what it is asked and told, headers too.
fn relay(guest: &mut Guest, inside: &NetNs, to: SocketAddr) -> std::io::Result<()> {
    while let Some(heard) = guest.request()? {
        let mut ask = Ask::get(to, heard.head.split(' ').nth(1).unwrap_or("/"));
        for (name, value) in heard.head.lines().skip(1).filter_map(|line| line.split_once(':')) {
            if !["host", "connection", "content-length"].contains(&name) {
                ask = ask.header(name, value.trim());
            }
        }
        let answer = ask.within(inside)?;
        let mut said = format!("HTTP/1.1 {} Told\r\n", answer.status);
        for (name, value) in &answer.headers {
            if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
                said.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        guest.say(format!("{said}Content-Length: {}\r\n\r\n", answer.body.len()))?;
        guest.say(&answer.body)?;
    }
    Ok(())
}
