//! The wire watch: reads every frame of one interface and follows each TCP stream from its first
//! byte. A stream is either TLS records throughout, or it is not; nothing is guessed.

mod stream;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys;
use stream::{Direction, Segment};

/// What to watch.
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// The interface.
    #[arg(long)]
    interface: String,
}

/// One direction of one TCP connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Who sent.
    pub from: SocketAddr,
    /// Who received.
    pub to: SocketAddr,
    /// Packets with payload.
    pub packets: u64,
    /// Payload bytes that were followed from the first one on, without a hole.
    pub bytes: u64,
    /// Whether the start was seen.
    pub from_start: bool,
    /// Whether packets were missed (by this watch, under load); what follows was not judged.
    pub hole: bool,
    /// Offset of the first byte that is no TLS record.
    pub plain_at: Option<u64>,
    /// Whether the text that test servers send was seen.
    pub mark: bool,
}

/// What was on the wire.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Frames of any kind.
    pub frames: u64,
    /// TCP streams, each direction by itself.
    pub streams: Vec<Seen>,
}

impl Report {
    /// Streams that carried bytes between two addresses of `among`.
    pub fn between<'a>(&'a self, among: &'a [IpAddr]) -> impl Iterator<Item = &'a Seen> {
        self.streams.iter().filter(|seen| {
            seen.packets > 0 && among.contains(&seen.from.ip()) && among.contains(&seen.to.ip())
        })
    }

    /// Checks that traffic between the addresses of `among` was TLS and nothing else, and that
    /// there was some. Gives the number of streams.
    ///
    /// # Errors
    /// The first stream that was not, or that there was none.
    pub fn all_tls(&self, among: &[IpAddr]) -> anyhow::Result<usize> {
        let mut count = 0;
        for seen in self.between(among) {
            anyhow::ensure!(seen.plain_at.is_none(), "not TLS: {seen:?}");
            anyhow::ensure!(!seen.mark, "the servers' text is readable: {seen:?}");
            anyhow::ensure!(seen.from_start, "its start was not seen: {seen:?}");
            count += 1;
        }
        anyhow::ensure!(count > 0, "no stream between these addresses in {} frames", self.frames);
        Ok(count)
    }
}

/// Watches until the input is closed, then prints the report.
#[expect(clippy::print_stdout, reason = "standard output is how a role answers")]
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let link = crate::netlink::Link::open()?;
    let mut socket = sys::packet_socket(link.index(&args.interface)?)?;
    let _ = socket.set_recv_buffer_size(64 << 20);
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    println!("watching {}", args.interface);
    let mut report = Report::default();
    let mut streams = BTreeMap::new();
    let mut frame = vec![0; 256 * 1024];
    loop {
        match socket.read(&mut frame) {
            Ok(length) => {
                report.frames += 1;
                if let Some(segment) = Segment::parse(&frame[..length]) {
                    let key = (segment.from, segment.to);
                    streams.entry(key).or_insert_with(Direction::default).add(&segment);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    report.streams = streams.into_iter().map(|((from, to), way)| way.seen(from, to)).collect();
    super::answer(&report)
}
