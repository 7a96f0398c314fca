//! `outlierDetection`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::asking::Ask;
use harness::eventually::eventually;

use super::super::super::mesh::SOON;
use super::super::super::suite::Case;
use super::fleet::{Fleet, Member};
use super::{annotated, apply, metric};

pub(super) const CASES: &[Case] = &[
    ("waypoint::resilience::outliers::one_that_fails_half_is_left_out_and_returns", &[], half),
    ("waypoint::resilience::outliers::one_that_fails_more_than_others_is_left_out", &[], rate),
    ("waypoint::resilience::outliers::one_that_is_slower_than_others_is_left_out", &[], slow),
    ("waypoint::resilience::outliers::with_all_ejected_there_is_nobody", &[], all_ejected),
];

const RATE: u32 = 500;

/// An interval and a base time of a second, everybody may be out, and so many failures in a row.
fn policy(consecutive: u32) -> String {
    format!(
        "outlierDetection: {{consecutive5xxErrors: {consecutive}, interval: 1s, baseEjectionTime: \
         1s, maxEjectionPercent: 100}}"
    )
}

fn half() -> anyhow::Result<()> {
    let fleet = Fleet::new("outliers-half")?;
    apply(&fleet.scene, "fleet", &format!("{{{}}}", policy(3)))?;
    one_of_five_fails_half(&fleet, "consecutive_5xx")
}

fn rate() -> anyhow::Result<()> {
    let fleet = Fleet::new("outliers-rate")?;
    let detector = "culvert.dev/outlier-success-rate: 'requestVolume=20'";
    annotated(&fleet.scene, "fleet", detector, &format!("{{{}}}", policy(0)))?;
    one_of_five_fails_half(&fleet, "success_rate")
}

/// Spec: one of five fails half of its requests; within 2 s clients see less than 1 % of errors, and
/// within an interval after it is well it is asked again.
fn one_of_five_fails_half(fleet: &Fleet, reason: &str) -> anyhow::Result<()> {
    let sick = &fleet.members[2];
    sick.fails(50);
    let first = fleet.load(RATE, 2.0, &[])?;
    ensure!(first.failed() > 0, "it was never asked: {first:?}");
    let second = fleet.load(RATE, 4.0, &[])?;
    let (failed, all) = (second.failed(), second.ok + second.failed());
    ensure!(failed * 100 < all, "{failed} of {all} failed");
    told(fleet, "endpoint is ejected", sick, reason)?;
    let total = metric(&fleet.scene, "culvert_outlier_ejections_total", &[reason])?;
    ensure!(total >= 1.0, "{total}");
    sick.fails(0);
    let healed = Instant::now();
    let (before, after) = (sick.asked(), fleet.load(RATE, 2.0, &[])?);
    ensure!(after.failed() == 0, "{after:?}");
    // The time of an ejection is an interval here; probes come at once with so many requests.
    let asked = sick.asked() - before;
    ensure!(asked > 5, "asked {asked} times {:?} after it was well", healed.elapsed());
    none_is_out(fleet)?;
    told(fleet, "endpoint is in again", sick, reason)?;
    let back = fleet.load(RATE, 2.0, &[])?;
    ensure!(back.servers.contains_key(&sick.name), "{back:?}");
    Ok(())
}

/// Spec: one of five takes ten times as long; after 5 s it gets at most a tenth of the requests, also
/// where taking turns would give it its full share.
fn slow() -> anyhow::Result<()> {
    let fleet = Fleet::new("outliers-slow")?;
    let policy = format!("{{loadBalancer: {{simple: ROUND_ROBIN}}, {}}}", policy(0));
    annotated(&fleet.scene, "fleet", "culvert.dev/outlier-latency: 'true'", &policy)?;
    fleet.members.iter().for_each(|member| member.dawdles(5));
    let slow = &fleet.members[1];
    slow.dawdles(50);
    let report = fleet.load(200, 4.0, &["--warm-up", "5"])?;
    ensure!(report.failed() == 0, "{report:?}");
    let own = report.servers.get(&slow.name).copied().unwrap_or_default();
    let all: u64 = report.servers.values().sum();
    ensure!(own * 10 <= all, "{own} of {all}: {:?}", report.servers);
    told(&fleet, "endpoint is ejected", slow, "latency")?;
    ensure!(metric(&fleet.scene, "culvert_outlier_ejections_total", &["latency"])? >= 1.0);
    slow.dawdles(5);
    none_is_out(&fleet)?;
    told(&fleet, "endpoint is in again", slow, "latency")?;
    let back = fleet.load(200, 1.0, &[])?;
    ensure!(back.servers.contains_key(&slow.name), "{back:?}");
    Ok(())
}

/// The log says so of this member, and why.
fn told(fleet: &Fleet, message: &str, member: &Member, reason: &str) -> anyhow::Result<()> {
    let log = fleet.scene.waypoint.log();
    let told: Vec<_> = log.iter().filter(|line| line["message"] == message).collect();
    let is_it = |line: &&serde_json::Value| {
        let endpoint = line["endpoint"].as_str().unwrap_or_default();
        line["reason"] == reason && endpoint.ends_with(&member.name)
    };
    ensure!(told.iter().any(is_it), "{message}: {told:?}");
    Ok(())
}

fn none_is_out(fleet: &Fleet) -> anyhow::Result<()> {
    eventually(SOON, "none is left out", || -> anyhow::Result<()> {
        let out = metric(&fleet.scene, "culvert_outlier_ejections_active", &[])?;
        fleet.load(RATE, 0.2, &[])?;
        ensure!(out == 0.0, "{out}");
        Ok(())
    })
}

fn all_ejected() -> anyhow::Result<()> {
    let fleet = Fleet::new("outliers-all")?;
    let policy = "{outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, \
                  maxEjectionPercent: 100}}";
    apply(&fleet.scene, "fleet", policy)?;
    fleet.members.iter().for_each(|member| member.fails(100));
    let ask = || Ask::get(Fleet::at(), "/").from(&fleet.scene.client);
    let answer = eventually(SOON, "nobody is left", || -> anyhow::Result<_> {
        let answer = ask()?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(answer)
    })?;
    let status = answer.header("proxy-status").unwrap_or_default();
    ensure!(status.contains("NO_HEALTHY_UPSTREAM"), "{answer:?}");
    ensure!(metric(&fleet.scene, "culvert_outlier_ejections_active", &[])? == 5.0);
    let asked: u32 = fleet.members.iter().map(Member::asked).sum();
    ensure!(ask()?.status == 503);
    let now: u32 = fleet.members.iter().map(Member::asked).sum();
    ensure!(now == asked, "one that is ejected was asked");
    // A panic threshold lets them be asked all the same.
    let policy = policy.replace("maxEjectionPercent", "minHealthPercent: 50, maxEjectionPercent");
    apply(&fleet.scene, "fleet", &policy)?;
    fleet.members.iter().for_each(|member| member.fails(0));
    eventually(Duration::from_secs(10), "they are asked", || -> anyhow::Result<()> {
        let answer = ask()?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
}
