//! `DestinationRule`s: limits of a destination, and endpoints that are left out.

mod adaptive;
mod balancing;
mod fields;
mod fleet;
mod limits;
mod outliers;
mod spread;

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use harness::eventually::eventually;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::lab::Lab;
use super::scene::Scene;

pub(crate) fn cases() -> Vec<Case> {
    [
        limits::CASES,
        fields::CASES,
        outliers::CASES,
        balancing::CASES,
        adaptive::CASES,
        spread::CASES,
    ]
    .concat()
}

/// A rule of this name for a service of the namespace.
fn rule(name: &str, service: &str, annotations: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, \
         namespace: shop, annotations: {{{annotations}}}}}\nspec:\n  host: {service}\n  \
         trafficPolicy: {policy}\n"
    )
}

/// Writes a rule, and waits until the waypoint has it.
fn apply(scene: &Scene, service: &str, policy: &str) -> anyhow::Result<()> {
    annotated(scene, service, "", policy)
}

/// The same with annotations.
fn annotated(scene: &Scene, service: &str, annotations: &str, policy: &str) -> anyhow::Result<()> {
    // A name of its own shows that it is this one that is in force.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{service}-{}", COUNT.fetch_add(1, Ordering::SeqCst));
    scene
        .cluster
        .mesh()
        .write(&format!("rule-{service}.yaml"), &rule(&name, service, annotations, policy))?;
    let marker = format!("rule-{service}.yaml");
    eventually(SOON, "the rule is in force", || {
        let dump: serde_json::Value =
            serde_json::from_str(&scene.waypoint_pod.get("127.0.0.1:15000", "/config_dump")?.1)?;
        let services = dump["services"].as_array().into_iter().flatten();
        let mut rules = services.flat_map(|one| one["trafficPolicies"]["rules"].as_array());
        let known = rules.any(|names| names.contains(&format!("shop/{name}").into()));
        let verdicts = dump["verdicts"].as_array().into_iter().flatten();
        let against: Vec<_> = verdicts.filter(|one| one["file"] == marker.as_str()).collect();
        ensure!(known && against.is_empty(), "{against:?}");
        anyhow::Ok(())
    })
}

/// A sample of a metric of the waypoint, by the text of its name and labels.
fn metric(scene: &Scene, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let (_, text) = scene.waypoint_pod.get("127.0.0.1:15020", "/metrics")?;
    let told =
        |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    let found = text.lines().find(told).and_then(|line| line.rsplit(' ').next());
    found.map_or(Ok(0.0), |value| Ok(value.parse()?))
}

/// A lab whose service has this policy for one port of HTTP/1.1, behind which nobody has been.
fn limited(name: &str, policy: &str) -> anyhow::Result<(Lab, u16)> {
    let lab = Lab::new(name)?;
    let port = lab.fresh();
    let entry = format!("{{portLevelSettings: [{{port: {{number: {port}}}, {policy}}}]}}");
    apply(&lab.scene, "lab", &entry)?;
    Ok((lab, port))
}
