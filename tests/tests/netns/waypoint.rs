//! Requests through a waypoint, from node to node.

mod authz;
mod backends;
mod beside;
mod clients;
mod duplicates;
mod endpoints;
mod ends;
mod envoy;
mod features;
mod floods;
mod frames;
mod grpc;
mod hostile;
mod http;
mod http2;
mod lab;
mod lifecycle;
mod limits;
mod mesh_profile;
mod outside;
mod protocols;
mod resilience;
mod retries;
mod rollouts;
pub(crate) mod scene;
mod storm;
mod trailers;
mod upgrade;
mod virtual_services;

use anyhow::ensure;

use self::scene::Scene;
use super::suite::Case;

pub(crate) fn cases() -> Vec<Case> {
    const BASIC: &[Case] = &[("waypoint::a_request_passes_the_waypoint", &[], basic)];
    [
        BASIC,
        http::CASES,
        upgrade::CASES,
        hostile::CASES,
        floods::CASES,
        backends::CASES,
        protocols::CASES,
        grpc::CASES,
        clients::CASES,
        lifecycle::CASES,
        features::CASES,
        mesh_profile::CASES,
        mesh_profile::matching::CASES,
        mesh_profile::modify::CASES,
        mesh_profile::redirect::CASES,
        mesh_profile::split::CASES,
        endpoints::CASES,
        retries::CASES,
        duplicates::CASES,
        storm::CASES,
        rollouts::CASES,
        ends::CASES,
        trailers::CASES,
        authz::CASES,
        beside::CASES,
        envoy::CASES,
        outside::CASES,
        limits::CASES,
        &resilience::cases(),
        &virtual_services::cases(),
    ]
    .concat()
}

/// MeshBasic: a service without routes answers.
fn basic() -> anyhow::Result<()> {
    let scene = Scene::new("basic")?;
    let answer = scene.ask("echo", "/hello")?;
    ensure!(answer.status == 200, "{answer:?}");
    let seen = answer.seen()?;
    ensure!(seen.path == "/hello", "{seen:?}");
    ensure!(seen.headers.contains_key("x-request-id"), "{seen:?}");
    // The application sees its client, not the proxies between.
    let client = scene.client.ip().to_string();
    ensure!(seen.peer.contains(&client), "{seen:?}, client is {client}");
    Ok(())
}
