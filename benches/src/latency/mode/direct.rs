//! No mesh: what the machine and the applications can do.

use super::{Ground, Mode, Targets, World};
use crate::latency::backend::Backend;

pub(super) fn build() -> anyhow::Result<World> {
    let ground = Ground::new(Mode::Direct)?;
    let backend = Backend::start(&ground.cluster, &ground.server)?;
    let targets = Targets::at(ground.server.ip());
    Ok(ground.world(Mode::Direct, targets, Vec::new(), backend, ()))
}
