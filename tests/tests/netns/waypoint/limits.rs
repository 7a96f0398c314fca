//! Rate limits of routes, services and callers.

use std::time::Instant;

use anyhow::ensure;
use harness::asking::Answer;
use harness::eventually::eventually;
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::role::load;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::http2;
use super::scene::Scene;

pub(crate) const CASES: &[Case] = &[
    ("waypoint::limits::the_rate_of_a_route_holds_over_all_connections", &[], together),
    ("waypoint::limits::a_greedy_caller_is_refused_and_a_modest_one_is_not", &[], per_caller),
    ("waypoint::limits::refusals_say_why_and_limits_change_live", &[], refusals),
];

fn route(kind: &str, annotations: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: limited\n  \
         namespace: shop\n  annotations: {{{annotations}}}\nspec:\n  parentRefs:\n  - group: \"\"\n    \
         kind: Service\n    name: echo\n    port: {port}\n  rules:\n  - filters:\n    \
         - type: ResponseHeaderModifier\n      responseHeaderModifier:\n        \
         set: [{{name: x-route, value: here}}]\n    backendRefs: [{{name: echo, port: {port}}}]\n"
    )
}

/// Puts a route for the service's first port in force.
fn limited(name: &str, annotations: &str) -> anyhow::Result<Scene> {
    let scene = Scene::new(name)?;
    scene.route(&route("HTTPRoute", annotations, 80), |scene| {
        let answer = scene.ask("echo", "/")?;
        let limited = answer.status == 429;
        ensure!(limited || answer.header("x-route").is_some(), "{answer:?}");
        Ok(())
    })?;
    Ok(scene)
}

fn load(pod: &Pod, rate: u32, seconds: f64) -> anyhow::Result<Running> {
    let target = Scene::at("echo").to_string();
    pod.role("load")
        .args(["--target", &target, "--path", "/bytes/2", "--connections", "8"])
        .args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()])
        .start()
}

/// Spec: never more than the burst and what the rate earns, over all workers.
fn together() -> anyhow::Result<()> {
    let scene = limited("limits-together", "culvert.dev/rate-limit: 50/s burst 20")?;
    let other = scene.cluster.pod(scene.client.node(), PodSpec::new("other").namespace("shop"))?;
    scene.near_ztunnel.serves(&other)?;
    let began = Instant::now();
    let mut loads = [load(&scene.client, 400, 3.0)?, load(&other, 400, 3.0)?];
    let mut passed = 0;
    for load in &mut loads {
        let report: load::Report = load.result(SOON)?;
        let refused = report.errors.get("status 429").copied().unwrap_or_default();
        ensure!(report.failed() == refused && refused > 100, "{report:?}");
        passed += report.ok;
    }
    // What passed before counting began is not in the reports, so they can only have less.
    let most = 20.0 + 50.0 * began.elapsed().as_secs_f64();
    eprintln!("{passed} passed, {most:.0} may");
    ensure!(passed as f64 <= most, "{passed} passed, of {most}");
    ensure!(passed >= 75, "{passed} passed, which is less than half of what was earned");
    Ok(())
}

fn per_caller() -> anyhow::Result<()> {
    let scene = limited("limits-caller", "culvert.dev/rate-limit-per-caller: 20/s")?;
    let modest = PodSpec::new("modest").namespace("shop").service_account("modest");
    let modest = scene.cluster.pod(scene.client.node(), modest)?;
    scene.near_ztunnel.serves(&modest)?;
    let began = Instant::now();
    let mut greedy = load(&scene.client, 400, 3.0)?;
    let mut modest = load(&modest, 5, 3.0)?;
    let (greedy, modest): (load::Report, load::Report) =
        (greedy.result(SOON)?, modest.result(SOON)?);
    ensure!(modest.failed() == 0 && modest.ok >= 10, "{modest:?}");
    let most = 20.0 + 20.0 * began.elapsed().as_secs_f64();
    ensure!(greedy.ok as f64 <= most && greedy.ok >= 30, "{} of {most}", greedy.ok);
    eventually(SOON, "callers at rest are forgotten", || {
        match metric(&scene, "culvert_rate_limit_callers", "HTTPRoute")? {
            0.0 => Ok(()),
            count => anyhow::bail!("{count} callers"),
        }
    })
}

fn refusals() -> anyhow::Result<()> {
    let scene = Scene::new("limits-refusals")?;
    let annotated = |value: &str| -> anyhow::Result<()> {
        let service = super::scene::service("echo", "10.96.0.10", "app: echo");
        let annotation =
            format!("name: echo\n  annotations: {{culvert.dev/rate-limit: {value}}}\n");
        scene
            .cluster
            .mesh()
            .write("echo.yaml", &service.replacen("name: echo\n", &annotation, 1))
            .map_err(Into::into)
    };
    annotated("1/h burst 3")?;
    let refused = eventually(SOON, "the burst is over", || -> anyhow::Result<Answer> {
        let answer = scene.ask("echo", "/")?;
        ensure!(answer.status == 429, "{answer:?}");
        Ok(answer)
    })?;
    ensure!(refused.body == b"local_rate_limited", "{refused:?}");
    ensure!(refused.header("x-envoy-ratelimited") == Some("true"), "{refused:?}");
    let cause = refused.header("proxy-status").unwrap_or_default();
    ensure!(cause == "culvert; details=RATE_LIMITED", "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap_or_default().parse()?;
    ensure!((3_000..=3_600).contains(&wait), "{wait}");
    http2::run(async {
        let mut sender = http2::open(&scene.client, Scene::port("echo", 7070)).await?;
        let answer = sender.send_request(http2::call("/shop.Cart/Add")).await?;
        let header = |name: &str| answer.headers().get(name).and_then(|one| one.to_str().ok());
        ensure!(answer.status() == 200 && header("grpc-status") == Some("14"), "{answer:?}");
        ensure!(header("x-envoy-ratelimited") == Some("true"), "{answer:?}");
        ensure!(header("grpc-retry-pushback-ms").is_some(), "{answer:?}");
        Ok(())
    })?;
    let told = eventually(SOON, "the log names it", || {
        scene.waypoint.caused("RATE_LIMITED").pop().ok_or("it does not")
    })?;
    ensure!(told["flags"] == "RL", "{told}");
    let error = told["error"].as_str().unwrap_or_default();
    ensure!(error.contains("Service/shop/echo") && error.contains("1/h burst 3"), "{told}");
    ensure!(metric(&scene, "culvert_rate_limited_total", "scope=\"together\"")? >= 2.0);
    // A value that cannot be right leaves the last good one; a changed limit begins anew.
    annotated("0/s")?;
    eventually(SOON, "the mistake is told", || -> anyhow::Result<()> {
        let (_, dump) = scene.waypoint_pod.get("127.0.0.1:15000", "/config_dump")?;
        ensure!(dump.contains("must be 1 to 1000000"), "no verdict");
        Ok(())
    })?;
    ensure!(scene.ask("echo", "/")?.status == 429);
    annotated("1000/s")?;
    eventually(SOON, "there is room again", || -> anyhow::Result<()> {
        let answer = scene.ask("echo", "/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
}

/// A sample of a metric of the waypoint; 0 without one.
fn metric(scene: &Scene, name: &str, label: &str) -> anyhow::Result<f64> {
    let (_, text) = scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
    let found = text.lines().find(|line| line.starts_with(name) && line.contains(label));
    found.and_then(|line| line.rsplit(' ').next()).map_or(Ok(0.0), |value| Ok(value.parse()?))
}
