//! `/config_dump`: what this process knows and does.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::admin::pages::Dump;
use shared::feed::dir;
use shared::mesh::Mesh;
use shared::process::dump;

use crate::config::Config;
use crate::node::Node;

/// All sections. Nothing in them is secret: keys and tokens are never told.
pub(super) fn dump(config: &Config, node: &Arc<Node>, feed: &dir::Feed) -> Dump {
    let version = dump::version(&config.process);
    let config = serde_json::to_value(config).unwrap_or_default();
    let mesh = |list: fn(&Mesh) -> Value| {
        let reader = node.mesh.clone();
        move || list(&reader.load())
    };
    let (standings, limiters) = (node.standings.clone(), node.limiters.clone());
    let certificates = node.certificates.clone();
    let names = node.names.clone();
    let (verdicts, directory) = (feed.verdicts_changed(), feed.status());
    Dump::default()
        .section("version", move || version.clone())
        .section("config", move || config.clone())
        .section("workloads", mesh(|mesh| dump::list(mesh.workloads())))
        .section("services", mesh(|mesh| dump::list(mesh.services())))
        .section("routes", mesh(|mesh| dump::list(mesh.routes())))
        .section("gateways", mesh(|mesh| dump::list(mesh.gateways())))
        .section("names", move || json!(names.borrow().list()))
        .section("policies", mesh(|mesh| dump::list(mesh.policies())))
        .section("destinations", move || standings.dump())
        .section("rateLimits", move || limiters.dump())
        .section("certificates", move || dump::certificates(&certificates))
        .section("verdicts", move || json!(**verdicts.borrow()))
        .section("meshDirectory", move || json!(*directory.borrow()))
}
