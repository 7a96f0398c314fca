//! Clients that send and take a lot, or nothing: what is on its way costs the waypoint little memory.

use std::io::{self, Read as _, Write as _};

use anyhow::ensure;
use harness::backend::Guest;
use harness::eventually::eventually;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::lab::{HTTP, Lab};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::clients::a_gibibyte_up_and_down_passes_in_flat_memory", &[], gibibytes),
    (
        "waypoint::clients::a_client_that_does_not_read_is_waited_for_in_flat_memory",
        &[],
        idle_reader,
    ),
];

const GIBIBYTE: u64 = 1 << 30;
/// What the waypoint may need more than at rest.
const MOST_BYTES: u64 = 64 << 20;

/// `PUT` reads, `GET` writes a gibibyte.
fn bulk(guest: &mut Guest) -> io::Result<()> {
    let head = guest.wire.until(b"\r\n\r\n")?.unwrap_or_default();
    if head.starts_with(b"PUT") {
        let ahead = guest.wire.ahead();
        let rest = GIBIBYTE - ahead as u64;
        let read = io::copy(&mut guest.wire.stream()?.take(rest), &mut io::sink())?;
        let body = (read + ahead as u64).to_string();
        return guest
            .say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }
    guest.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIBIBYTE}\r\n\r\n"))?;
    pour(&mut guest.wire.stream()?)
}

fn pour(to: &mut impl io::Write) -> io::Result<()> {
    let part = vec![b'x'; 1 << 20];
    (0..GIBIBYTE >> 20).try_for_each(|_| to.write_all(&part))
}

fn gibibytes() -> anyhow::Result<()> {
    let lab = Lab::new("clients-bulk")?;
    let _backend = lab.backend(HTTP, bulk)?;
    let before = lab.memory_bytes()?;
    let mut up = lab.wire(HTTP)?;
    up.say(format!("PUT / HTTP/1.1\r\nHost: lab\r\nContent-Length: {GIBIBYTE}\r\n\r\n"))?;
    pour(&mut up.stream()?)?;
    let answer = up.answer("PUT")?;
    ensure!(answer.body == GIBIBYTE.to_string().as_bytes(), "{answer:?}");
    let mut down = lab.wire(HTTP)?;
    down.say("GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    down.until(b"\r\n\r\n")?;
    let ahead = down.ahead() as u64;
    let read = ahead + io::copy(&mut down.stream()?, &mut io::sink())?;
    ensure!(read == GIBIBYTE, "{read} bytes");
    let grown = lab.most_memory_bytes()?.saturating_sub(before);
    ensure!(grown < MOST_BYTES, "{} MiB more", grown >> 20);
    Ok(())
}

fn idle_reader() -> anyhow::Result<()> {
    let lab = Lab::new("clients-idle")?;
    let backend = lab.backend(HTTP, |guest| {
        let stream = guest.wire.stream()?;
        // It gives up when nothing moves any more.
        stream.set_write_timeout(Some(std::time::Duration::from_secs(1)))?;
        guest.request()?;
        bulk_down(guest)
    })?;
    let before = lab.memory_bytes()?;
    let mut wire = lab.wire(HTTP)?;
    wire.say("GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    eventually(SOON, "the application is stopped", || match backend.ended() {
        0 => Err("it still writes"),
        _ => Ok(()),
    })?;
    let grown = lab.most_memory_bytes()?.saturating_sub(before);
    ensure!(grown < MOST_BYTES, "{} MiB more", grown >> 20);
    let mut some = [0; 4096];
    ensure!(wire.stream()?.read(&mut some)? > 0);
    Ok(())
}

fn bulk_down(guest: &mut Guest) -> io::Result<()> {
    guest.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIBIBYTE}\r\n\r\n"))?;
    pour(&mut guest.wire.stream()?)?;
    guest.wire.stream()?.flush()
}
