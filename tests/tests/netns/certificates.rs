//! Certificates that are renewed under load, and an authority that is away for a while.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually::pause;
use harness::pod::{Pod, PodSpec};
use harness::role::load;

use super::mesh::{Mesh, SOON};
use super::suite::Case;

pub(crate) const CASES: &[Case] =
    &[("certificates::short_certificates_rotate_under_load", &[], short_certificates_rotate)];

fn short_certificates_rotate() -> anyhow::Result<()> {
    let mut mesh = Mesh::with("rotation", "5s", &[])?;
    // Tunnels outlive certificates: each of these makes its first one when its certificate has
    // been renewed many times.
    let late: Vec<Pod> = (0..6)
        .map(|number| mesh.cluster.pod(&mesh.near, PodSpec::new(&format!("late-{number}"))))
        .collect::<anyhow::Result<_>>()?;
    let _http = mesh.serve("http", 80)?;
    let load = mesh
        .client
        .role("load")
        .args(["--target", "server:80", "--rate", "50", "--fresh", "--connections", "4"])
        .start()?;
    let first = serial(&mesh)?;
    for (number, pod) in late.iter().enumerate() {
        pause(Duration::from_secs(19));
        let (status, _) = pod
            .get(&format!("{}:80", mesh.server.ip()), "/")
            .with_context(|| format!("first connection of {}", pod.name()))?;
        ensure!(status == 200);
        if number == 2 {
            // Shorter than what is left of a certificate that waits for its renewal.
            mesh.authority.kill()?;
            pause(Duration::from_secs(1));
            mesh.authority.revive(&mesh.cluster)?;
        }
    }
    pause(Duration::from_secs(5));
    let report: load::Report = load.finish(SOON)?;
    ensure!(report.failed() == 0 && report.ok > 5000, "{report:?}");
    ensure!(serial(&mesh)? != first, "the certificate is still the first one");
    Ok(())
}

/// The serial number of the client's certificate, as `/config_dump` has it.
fn serial(mesh: &Mesh) -> anyhow::Result<String> {
    let (_, dump) = mesh.near.get("127.0.0.1:15000", "/config_dump")?;
    let dump: serde_json::Value = serde_json::from_str(&dump)?;
    let certificates = dump["certificates"].as_array().context("no certificates in the dump")?;
    let identity = mesh.client.identity();
    let own = certificates.iter().find(|one| one["identity"] == identity.as_str());
    let own = own.context("no certificate of the client in the dump")?;
    let serial = own["certChain"][0]["serialNumber"].as_str();
    Ok(serial.with_context(|| format!("no serial number in {own}"))?.to_owned())
}
