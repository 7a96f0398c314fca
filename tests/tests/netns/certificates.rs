//! Certificates that are renewed under load, and an authority that is away for a while.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually::{eventually, pause};
use harness::pod::{Pod, PodSpec};
use harness::role::load;

use super::mesh::{Mesh, SOON};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("certificates::short_certificates_rotate_under_load", &[], short_certificates_rotate),
    ("certificates::an_absent_authority_hurts_nobody_before_expiry", &[], absent_authority),
];

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

fn absent_authority() -> anyhow::Result<()> {
    let mut mesh = Mesh::with("absent", "40s", &[])?;
    let _http = mesh.serve("http", 80)?;
    let target = format!("{}:80", mesh.server.ip());
    // A tunnel once made outlives its certificate, so each pod makes one connection, its first.
    let early = pods(&mesh, "early", 4)?;
    let late = pods(&mesh, "late", 1)?.remove(0);
    mesh.authority.kill()?;
    let expiries = expiries(&mesh)?;
    let (first, last) = (expiries.iter().min(), expiries.iter().max());
    let (first, last) = first.zip(last).context("no certificates")?;
    let mut tried = 0;
    for (number, pod) in (1u32..).zip(&early) {
        // The last of them a few seconds before the first certificate ends.
        let left = first.saturating_sub(harness::role::now_ms()).saturating_sub(4000);
        pause(Duration::from_millis(left) / (early.len() as u32 + 1 - number));
        let answer = pod.get(&target, "/");
        if harness::role::now_ms() < *first {
            let (status, _) = answer.with_context(|| format!("{} before expiry", pod.name()))?;
            ensure!(status == 200);
            tried += 1;
        }
    }
    ensure!(tried >= 2, "too slow a machine: {tried} connections before expiry");
    pause(Duration::from_millis(last.saturating_sub(harness::role::now_ms())));
    let refused = eventually(SOON, "an expired certificate is of no use", || {
        late.get(&target, "/").err().ok_or("it is served")
    })?;
    let causes = ["IDENTITY_UNAVAILABLE", "TUNNEL_TLS_FAILED", "TUNNEL_CONNECT_FAILED"];
    eventually(SOON, "the cause is told", || {
        let told = causes.iter().any(|cause| !mesh.near_ztunnel.caused(cause).is_empty());
        if told { Ok(()) } else { Err(refused.to_string()) }
    })?;
    mesh.authority.revive(&mesh.cluster)?;
    let (status, _) =
        eventually(Duration::from_secs(90), "certificates come again", || late.get(&target, "/"))?;
    ensure!(status == 200);
    Ok(())
}

fn pods(mesh: &Mesh, name: &str, count: usize) -> anyhow::Result<Vec<Pod>> {
    (0..count).map(|number| mesh.pod(PodSpec::new(&format!("{name}-{number}")))).collect()
}

/// When the certificates of both nodes end, by the machine's clock.
fn expiries(mesh: &Mesh) -> anyhow::Result<Vec<u64>> {
    let mut all = Vec::new();
    for node in [&mesh.near, &mesh.far] {
        let (_, dump) = node.get("127.0.0.1:15000", "/config_dump")?;
        let dump: serde_json::Value = serde_json::from_str(&dump)?;
        for own in dump["certificates"].as_array().context("no certificates in the dump")? {
            let date = own["certChain"][0]["expirationTime"].as_str();
            all.push(unix_ms(date.with_context(|| format!("no end in {own}"))?)?);
        }
    }
    Ok(all)
}

/// RFC 3339 in UTC, without fractions.
fn unix_ms(date: &str) -> anyhow::Result<u64> {
    let parts: Result<Vec<u64>, _> =
        date.split(['-', 'T', ':', 'Z']).take(6).map(str::parse).collect();
    let [year, month, day, hour, minute, second] = parts?[..] else {
        anyhow::bail!("{date:?} is no date")
    };
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Ok((((days - 719_468) * 24 + hour) * 60 + minute) * 60_000 + second * 1000)
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
