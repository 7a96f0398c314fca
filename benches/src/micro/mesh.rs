//! A mesh of any size with 500 services, and changes of it.

use std::net::IpAddr;

use shared::mesh::{Health, Reader, Workload, Writer, sample, writer};

/// That many workloads.
pub fn mesh(size: u32) -> (Writer, Reader) {
    let (mut writer, reader) = writer();
    writer.apply((0..size).map(|number| workload(number).into()));
    writer.apply((0..500).map(|number| sample::service(&format!("s{number}"), "ns").into()));
    (writer, reader)
}

/// Publishes another health of one of `size` workloads.
pub fn change(writer: &mut Writer, round: u32, size: u32) {
    let mut changed = workload(round.wrapping_mul(7919) % size);
    changed.health = if round.is_multiple_of(2) { Health::Healthy } else { Health::Unhealthy };
    writer.apply([changed.into()]);
}

fn workload(number: u32) -> Workload {
    let mut workload = sample::workload(&format!("pod-{number}"), "ns");
    workload.addresses = [address(number)].into();
    let service = sample::service_key(&format!("s{}", number % 500), "ns");
    workload.services = [(service, [(80, 8080)].into())].into();
    workload
}

/// Of a workload.
pub fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}
