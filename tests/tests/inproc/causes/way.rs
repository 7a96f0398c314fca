//! Finding the way: what the mesh directory says, or does not say, about a destination.

use std::net::SocketAddr;

use harness::pod::PodSpec;
use ztunnel::outcome::Outcome;

use crate::inproc::log::Log;
use crate::inproc::scene::Scene;
use crate::inproc::suite::cases;
use crate::inproc::world::World;

cases! {
    "way::a_connection_to_the_proxy_itself_is_refused": [RECURSIVE_CALL] => recursive;
    "way::a_service_without_endpoints_is_unhealthy": [NO_HEALTHY_UPSTREAM] => no_endpoints;
    "way::a_waypoint_that_does_not_exist_is_not_bypassed": [WAYPOINT_UNKNOWN] => no_waypoint;
    "way::a_waypoint_without_instances_is_not_bypassed": [WAYPOINT_UNHEALTHY] => idle_waypoint;
    "way::a_network_without_a_gateway_is_not_reached": [GATEWAY_MISSING] => no_gateway;
    "way::a_pod_behind_a_distant_waypoint_needs_a_service": [SERVICE_REQUIRED] => no_service;
    "way::a_service_of_another_namespace_stays_hidden": [SERVICE_HIDDEN] => hidden;
    "way::a_name_without_an_address_is_told": [NAME_UNRESOLVED] => no_name;
}

/// The service under test.
const SHOP: &str = "10.96.0.9:80";

fn shop() -> SocketAddr {
    SHOP.parse().expect("legal")
}

/// A Kubernetes service `shop` at [`SHOP`], with these labels, for pods with the label `app: shop`.
fn shop_yaml(labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: shop\n  namespace: default\n  \
         labels: {{{labels}}}\nspec:\n  clusterIP: 10.96.0.9\n  selector: {{app: shop}}\n  \
         ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

/// A scene whose mesh directory holds `yaml` besides.
async fn scene(log: &Log, yaml: &str) -> anyhow::Result<Scene> {
    let world = World::new(log)?;
    world.cluster.mesh().write("case.yaml", yaml)?;
    Scene::start(world).await
}

async fn recursive(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log, "").await?;
    let own = SocketAddr::from(([127, 0, 0, 1], 15001));
    let message = "attempted recursive call to ourselves";
    scene.fails(own, Outcome::RECURSIVE_CALL, message).await?;
    Ok(())
}

async fn no_endpoints(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log, &shop_yaml("")).await?;
    let message = "no healthy upstream: 10.96.0.9:80";
    scene.fails(shop(), Outcome::NO_HEALTHY_UPSTREAM, message).await?;
    Ok(())
}

async fn no_waypoint(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log, &shop_yaml("istio.io/use-waypoint: nowhere")).await?;
    let message = "unknown waypoint: default/nowhere.default.svc.cluster.local";
    scene.fails(shop(), Outcome::WAYPOINT_UNKNOWN, message).await?;
    Ok(())
}

/// A waypoint `gate`, with this status.
fn waypoint(waypoint_for: &str, status: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: gate\n  \
         namespace: default\n  labels: {{istio.io/waypoint-for: {waypoint_for}}}\nspec:\n  \
         gatewayClassName: istio-waypoint\n  listeners:\n  - {{name: mesh, port: 15008, \
         protocol: HBONE}}\n{status}"
    )
}

async fn idle_waypoint(log: Log) -> anyhow::Result<()> {
    let idle = "---\napiVersion: v1\nkind: Service\nmetadata: {name: gate, namespace: default}\n\
                spec:\n  clusterIP: 10.96.0.8\n  selector: {app: gate}\n  \
                ports: [{port: 15008}]\n";
    let shop_yaml = shop_yaml("istio.io/use-waypoint: gate");
    let mut scene = scene(&log, &format!("{shop_yaml}{}{idle}", waypoint("service", ""))).await?;
    let message =
        "unknown waypoint: default/gate.default.svc.cluster.local has no healthy instance";
    scene.fails(shop(), Outcome::WAYPOINT_UNHEALTHY, message).await?;
    Ok(())
}

/// A waypoint whose only instance is a machine of another network.
fn distant_waypoint() -> String {
    let status = "status:\n  addresses: [{type: Hostname, value: gate.elsewhere.test}]\n";
    let machine = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: \
                   {name: gate, namespace: default}\nspec: {address: gate.elsewhere.test, \
                   network: elsewhere}\n";
    format!("{}{machine}", waypoint("all", status))
}

async fn no_gateway(log: Log) -> anyhow::Result<()> {
    let shop_yaml = shop_yaml("istio.io/use-waypoint: gate");
    let mut scene = scene(&log, &format!("{shop_yaml}{}", distant_waypoint())).await?;
    let message = "is on another network without a network gateway";
    scene.fails(shop(), Outcome::GATEWAY_MISSING, message).await?;
    Ok(())
}

async fn no_service(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log, &distant_waypoint()).await?;
    let behind = PodSpec::new("behind").label("istio.io/use-waypoint", "gate");
    let behind = scene.world.far_pod(behind)?;
    let to = SocketAddr::new(behind.ip(), 80);
    let message = format!("no service for target {to} on another network");
    scene.fails(to, Outcome::SERVICE_REQUIRED, &message).await?;
    Ok(())
}

async fn hidden(log: Log) -> anyhow::Result<()> {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: secret, \
                 namespace: other}\nspec:\n  hosts: [secret.test]\n  addresses: [10.96.0.9]\n  \
                 exportTo: [\".\"]\n  resolution: STATIC\n  ports: [{number: 80, name: tcp}]\n  \
                 workloadSelector: {labels: {app: secret}}\n";
    let mut scene = scene(&log, entry).await?;
    let _secret = scene.world.far_pod(PodSpec::new("secret").namespace("other"))?;
    let message = "service other/secret.test is not visible from here";
    scene.fails(shop(), Outcome::SERVICE_HIDDEN, message).await?;
    Ok(())
}

async fn no_name(log: Log) -> anyhow::Result<()> {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: gone, \
                 namespace: default}\nspec:\n  hosts: [gone.test]\n  addresses: [10.96.0.9]\n  \
                 resolution: DNS\n  ports: [{number: 80, name: tcp}]\n  \
                 endpoints: [{address: gone.invalid}]\n";
    let mut scene = scene(&log, entry).await?;
    let message = "dns lookup of gone.invalid failed";
    scene.fails(shop(), Outcome::NAME_UNRESOLVED, message).await?;
    Ok(())
}
