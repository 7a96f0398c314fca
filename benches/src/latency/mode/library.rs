//! No mesh, but mutual TLS: the applications do it themselves, client and server.

use super::{Ground, Mode, Targets, World};
use crate::latency::backend::Backend;
use crate::latency::certs;

pub(super) fn build() -> anyhow::Result<World> {
    let ground = Ground::new(Mode::Library)?;
    certs::make(&ground.certs())?;
    let backend = Backend::start_with_tls(&ground.cluster, &ground.server, &ground.certs())?;
    let targets = Targets::at(ground.server.ip());
    let tls = ground.certs().join("client");
    let mut world = ground.world(Mode::Library, targets, Vec::new(), backend, ());
    world.client_tls = Some(tls);
    Ok(world)
}
