//! Failures that are made on purpose.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::asking::Ask;
use harness::eventually::eventually;

use super::super::super::mesh::SOON;
use super::super::super::suite::Case;
use super::super::http2;
use super::super::mesh_profile::is_from;
use super::super::scene::Scene;
use super::{TO_V1, ask, in_force, is, is_caused, virtual_service};

pub(super) const CASES: &[Case] = &[
    ("waypoint::virtual_services::faults::requests_are_aborted_and_delayed", &[], faults),
    ("waypoint::virtual_services::faults::grpc_is_told_in_its_words", &[], grpc),
    ("waypoint::virtual_services::faults::nobody_is_blamed", &[], blameless),
    ("waypoint::virtual_services::faults::what_waits_may_be_revoked", &[], revoked),
];

fn abort(status: &str) -> String {
    format!("fault: {{abort: {{{status}, percentage: {{value: 100}}}}}}")
}

fn faults() -> anyhow::Result<()> {
    let scene = Scene::new("vs-faults")?;
    let delay = "fault: {delay: {fixedDelay: 700ms, percentage: {value: 100}}}";
    let rules = [
        &format!("match: [{{uri: {{prefix: /abort}}}}], {}, {TO_V1}", abort("httpStatus: 555")),
        &format!(
            "match: [{{uri: {{prefix: /never}}}}], fault: {{abort: {{httpStatus: 555}}}}, {TO_V1}"
        ),
        // A delay is no part of the time that a route has.
        &format!("match: [{{uri: {{prefix: /delay}}}}], timeout: 600ms, {delay}, {TO_V1}"),
        &format!(
            "match: [{{uri: {{prefix: /half}}}}], \
             fault: {{abort: {{httpStatus: 555, percentage: {{value: 50}}}}}}, {TO_V1}"
        ),
    ];
    in_force(&scene, &virtual_service("faults", &rules.map(|rule| &**rule)))?;
    let aborted = scene.ask("echo", "/abort")?;
    is(&aborted, 555)?;
    is_caused(&aborted, "FAULT_ABORTED")?;
    ensure!(aborted.body == b"fault filter abort", "{aborted:?}");
    is_from(&scene.ask("echo", "/never")?, "echo-v1")?;
    let began = Instant::now();
    let delayed = scene.ask("echo", "/delay/1")?;
    ensure!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    is_from(&delayed, "echo-v1")?;
    let mut failed = 0;
    for _ in 0..200 {
        failed += u32::from(scene.ask("echo", "/half")?.status == 555);
    }
    // 100, and six deviations.
    ensure!((58..=142).contains(&failed), "{failed} of 200");
    eventually(SOON, "both are told", || {
        let aborted = scene.waypoint.caused("FAULT_ABORTED");
        ensure!(aborted.iter().all(|line| line["flags"] == "FI"), "{aborted:?}");
        ensure!(aborted.len() == 1 + failed as usize, "{}", aborted.len());
        let delayed = scene.waypoint.caused("FAULT_DELAYED");
        let [one] = &delayed[..] else { anyhow::bail!("{delayed:?}") };
        ensure!(one["flags"] == "DI", "{one}");
        let (_, metrics) = scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
        let counted = |kind: &str| {
            let label = format!("kind=\"{kind}\"");
            let told =
                |line: &&str| line.starts_with("culvert_faults_total") && line.contains(&label);
            metrics.lines().find(told).and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
        };
        ensure!(counted("abort") == Some(1 + failed) && counted("delay") == Some(1), "{metrics}");
        Ok(())
    })
}

fn grpc() -> anyhow::Result<()> {
    let scene = Scene::new("vs-grpc-faults")?;
    let rules = [
        &format!("match: [{{uri: {{prefix: /a.A/Http}}}}], {}, {TO_V1}", abort("httpStatus: 503")),
        &format!(
            "match: [{{uri: {{prefix: /a.A/Own}}}}], {}, {TO_V1}",
            abort("grpcStatus: DATA_LOSS")
        ),
    ];
    in_force(&scene, &virtual_service("grpc", &rules.map(|rule| &**rule)))?;
    for (path, expected) in [("/a.A/Http", "14"), ("/a.A/Own", "15")] {
        let (status, grpc) = http2::run(async {
            let mut sender = http2::open(&scene.client, Scene::port("echo", 7070)).await?;
            let response = sender.send_request(http2::call(path)).await?;
            let grpc = response.headers().get("grpc-status").and_then(|it| it.to_str().ok());
            Ok((response.status().as_u16(), grpc.unwrap_or("").to_owned()))
        })?;
        ensure!(status == 200 && grpc == expected, "{path}: {status} {grpc:?}");
    }
    Ok(())
}

/// Failures on purpose eject no endpoint and spend no budget: nobody was asked.
fn blameless() -> anyhow::Result<()> {
    let scene = Scene::with(
        "vs-blameless",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: v1, namespace: shop}\n\
         spec:\n  host: echo-v1\n  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, \
         maxEjectionPercent: 100}}\n",
    )?;
    let retries = "retries: {attempts: 3, retryOn: 5xx}";
    let rules = [
        &format!(
            "match: [{{uri: {{prefix: /abort}}}}], {retries}, {}, {TO_V1}",
            abort("httpStatus: 503")
        ),
        &format!("match: [{{uri: {{prefix: /good}}}}], {TO_V1}"),
    ];
    in_force(&scene, &virtual_service("blameless", &rules.map(|rule| &**rule)))?;
    let before = Ask::get((scene.v1.ip(), 8080).into(), "/count").from(&scene.client)?.body;
    for _ in 0..20 {
        is(&ask("/abort").from(&scene.client)?, 503)?;
    }
    let after = Ask::get((scene.v1.ip(), 8080).into(), "/count").from(&scene.client)?.body;
    ensure!(before == after, "nobody is asked");
    is_from(&scene.ask("echo", "/good")?, "echo-v1")?;
    let (_, metrics) = scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
    let spent = metrics.lines().find(|line| {
        (line.starts_with("culvert_retries_total") || line.starts_with("culvert_outlier_ejections"))
            && !line.ends_with(" 0")
    });
    ensure!(spent.is_none(), "{spent:?}");
    Ok(())
}

/// A request that waits on purpose ends when a policy no longer allows it.
fn revoked() -> anyhow::Result<()> {
    let scene = Scene::new("vs-revoked")?;
    let delay = "fault: {delay: {fixedDelay: 10m, percentage: {value: 100}}}";
    let rules = [&format!("match: [{{uri: {{prefix: /late}}}}], {delay}, {TO_V1}")];
    in_force(&scene, &virtual_service("revoked", &rules.map(|rule| &**rule)))?;
    std::thread::scope(|threads| -> anyhow::Result<()> {
        let waiting = threads.spawn(|| ask("/late").from(&scene.client));
        eventually(SOON, "it waits", || {
            let (_, metrics) = scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
            let waits =
                |line: &str| line.starts_with("culvert_faults_total") && line.contains("delay");
            ensure!(metrics.lines().any(waits), "{metrics}");
            Ok(())
        })?;
        scene.cluster.mesh().write(
            "policy.yaml",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: late, namespace: \
             shop}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: echo}]\n  action: DENY\n  \
             rules: [{to: [{operation: {paths: [/late]}}]}]\n",
        )?;
        let ended = waiting.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        is(&ended, 403)?;
        is_caused(&ended, "POLICY_CHANGED")
    })?;
    eventually(SOON, "it is told", || {
        let told = scene.waypoint.caused("POLICY_CHANGED");
        ensure!(told.len() == 1 && told[0]["flags"] == "DI", "{told:?}");
        Ok(())
    })
}
