//! `/config_dump`: what this process knows and does, in the keys that `istioctl ztunnel-config` reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use shared::admin::pages::Dump;
use shared::feed::dir;
use shared::mesh::Mesh;
use shared::process::dump;
use shared::workers::Workers;

use crate::config::Config;
use crate::node::Node;
use crate::pods::Status;

/// All sections. Nothing in them is secret: keys and tokens are never told.
pub(super) fn dump(
    config: &Config,
    node: &Arc<Node>,
    workers: &Workers,
    pods: &Status,
    feed: &dir::Feed,
) -> Dump {
    let version = dump::version(&config.process);
    let config = serde_json::to_value(config).unwrap_or_default();
    let mesh = |list: fn(&Mesh) -> Value| {
        let reader = node.mesh.clone();
        move || list(&reader.load())
    };
    let certificates = node.certificates.clone();
    let (verdicts, directory) = (feed.verdicts_changed(), feed.status());
    let state = (node.clone(), workers.clone(), pods.clone());
    Dump::default()
        .section("version", move || version.clone())
        .section("config", move || config.clone())
        .section("workloads", mesh(|mesh| dump::list(mesh.workloads())))
        .section("services", mesh(|mesh| dump::list(mesh.services())))
        .section("policies", mesh(|mesh| dump::list(mesh.policies())))
        .section("certificates", move || dump::certificates(&certificates))
        .asked("workloadState", move || {
            let (node, workers, pods) = state.clone();
            async move { workload_state(&node, &workers, &pods).await }
        })
        .section("verdicts", move || json!(**verdicts.borrow()))
        .section("meshDirectory", move || json!(*directory.borrow()))
}

/// Every pod with its connections, by the id of its workload.
async fn workload_state(node: &Arc<Node>, workers: &Workers, pods: &Status) -> Value {
    let mut open: BTreeMap<String, [Vec<Value>; 2]> = BTreeMap::new();
    for connection in node.connections(workers).await {
        let [inbound, outbound] = open.entry(connection.pod.clone()).or_default();
        match connection.direction {
            shared::telemetry::access::Direction::Inbound => inbound.push(json!(connection)),
            shared::telemetry::access::Direction::Outbound => outbound.push(json!(connection)),
        }
    }
    pods.snapshot()
        .into_iter()
        .map(|(uid, entry)| {
            let [inbound, outbound] = open.remove(&entry.info.to_string()).unwrap_or_default();
            let mut value = json!(entry);
            value["connections"] = json!({ "inbound": inbound, "outbound": outbound });
            (uid.to_string(), value)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}
