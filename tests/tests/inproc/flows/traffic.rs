//! Bytes, ends and other endpoints.

use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::ensure;
use http::Response;
use shared::identity::WorkloadCertificate;
use shared::mesh::{Protocol, Workload};
use shared::telemetry::metrics::Exposition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::inproc::flows::world::{TestPod, World, service};
use crate::inproc::log::Log;
use crate::inproc::peer::{TUNNEL, accept};
use crate::inproc::suite::cases;

cases! {
    "flows::tunnel_carries_bytes_and_both_ends_tell_it":
        [] => tunnel_carries_bytes_and_both_ends_tell_it;
    "flows::server_may_speak_first_and_half_close": [] => server_may_speak_first_and_half_close;
    "flows::megabytes_arrive_whole": [] => megabytes_arrive_whole;
    "flows::many_connections_share_few_tunnels": [] => many_connections_share_few_tunnels;
    "flows::outside_destination_is_dialled_plainly": [] => outside_destination_is_dialled_plainly;
    "flows::dead_endpoint_costs_no_connection": [] => dead_endpoint_costs_no_connection;
    "flows::what_an_application_took_nothing_of_is_carried_to_another":
        [UNDELIVERED] => untaken_is_carried_elsewhere;
    "flows::restarted_peer_costs_no_connection": [] => restarted_peer_costs_no_connection;
    "flows::open_connections_are_listed": [] => open_connections_are_listed;
}

async fn exchange(client: &mut TcpStream, text: &[u8]) -> anyhow::Result<()> {
    client.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer).await?;
    ensure!(answer == text);
    Ok(())
}

async fn client_and_server(world: &World) -> anyhow::Result<(TestPod, TestPod)> {
    Ok((world.served("client", 1).await?, world.served("server", 2).await?))
}

async fn tunnel_carries_bytes_and_both_ends_tell_it(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    let mut socket = world.connect(&client, echo).await?;
    exchange(&mut socket, b"hello").await?;
    socket.shutdown().await?;
    ensure!(socket.read(&mut [0; 1]).await? == 0);
    let there = log.line(&["direction=\"outbound\"", "complete"]).await?;
    let here = log.line(&["direction=\"inbound\"", "complete"]).await?;
    for line in [&there, &here] {
        ensure!(line.contains("src.identity=\"spiffe://cluster.local/ns/team/sa/client\""));
        ensure!(line.contains("dst.identity=\"spiffe://cluster.local/ns/team/sa/server\""));
        ensure!(line.contains(&format!("dst.hbone_addr={echo}")), "{line}");
        ensure!(line.contains("bytes_sent=5 bytes_recv=5"), "{line}");
    }
    let id = |line: &str| line.split("connection=\"").nth(1).map(str::to_owned);
    ensure!(id(&there) == id(&here) && id(&there).is_some(), "{there}\n{here}");
    ensure!(world.part.live.is_empty() && world.part.permits.is_empty());
    world.part.traffic.flush();
    let metrics = world.registry.expose(Exposition::Prometheus)?;
    let count = |name: &str| metrics.lines().filter(|line| line.starts_with(name)).count();
    for counter in ["istio_tcp_connections_opened_total{", "istio_tcp_connections_closed_total{"] {
        ensure!(count(counter) == 2, "{metrics}");
    }
    Ok(())
}

async fn server_may_speak_first_and_half_close(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let (listener, address) = server.application().await?;
    let application = spawn_local(async move {
        let (mut socket, _) = listener.accept().await?;
        socket.write_all(b"220 ready").await?;
        socket.shutdown().await?;
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await?;
        std::io::Result::Ok(rest)
    });
    let mut socket = world.connect(&client, address).await?;
    let mut banner = Vec::new();
    socket.read_to_end(&mut banner).await?;
    ensure!(banner == b"220 ready");
    socket.write_all(b"after your end").await?;
    socket.shutdown().await?;
    ensure!(application.await?? == b"after your end");
    log.line(&["direction=\"inbound\"", "complete", "bytes_sent=9 bytes_recv=14"]).await?;
    Ok(())
}

async fn megabytes_arrive_whole(log: Log) -> anyhow::Result<()> {
    const LENGTH: usize = 24 << 20;
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    let socket = world.connect(&client, echo).await?;
    let (mut read, mut write) = socket.into_split();
    let writing = spawn_local(async move {
        let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        for _ in 0..LENGTH >> 20 {
            write.write_all(&block).await?;
        }
        std::io::Result::Ok(())
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await?;
    writing.await??;
    ensure!(received.len() == LENGTH);
    let intact = |(at, byte): (usize, &u8)| *byte == ((at % (1 << 20)) % 251) as u8;
    ensure!(received.iter().enumerate().all(intact));
    Ok(())
}

async fn many_connections_share_few_tunnels(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    let mut sockets = Vec::new();
    for _ in 0..50 {
        let mut socket = world.connect(&client, echo).await?;
        exchange(&mut socket, b"x").await?;
        sockets.push(socket);
    }
    ensure!(world.tunnels() == 1, "{} tunnels", world.tunnels());
    ensure!(world.part.permits.len() == 50);
    Ok(())
}

async fn outside_destination_is_dialled_plainly(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let client = world.served("client", 1).await?;
    let outside = world.pod("outside", 2)?;
    let echo = outside.echo().await?;
    exchange(&mut world.connect(&client, echo).await?, b"hello").await?;
    let plain = outside.workload();
    world.apply([Workload { protocol: Protocol::Tcp, ..plain }.into()]);
    exchange(&mut world.connect(&client, echo).await?, b"again").await?;
    Ok(())
}

async fn dead_endpoint_costs_no_connection(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, well) = (world.served("client", 1).await?, world.served("well", 2).await?);
    let (dead, idle) = (world.pod("dead", 3)?, world.served("idle", 4).await?);
    let port = well.echo().await?.port();
    // `dead` has no listener for tunnels, `idle` no application: 503.
    world.apply([
        service("shop", world.ip(9)).into(),
        well.behind("shop", &[(80, port)]).into(),
        dead.behind("shop", &[(80, port)]).into(),
        idle.behind("shop", &[(80, port)]).into(),
    ]);
    for _ in 0..30 {
        let mut socket = world.connect(&client, (world.ip(9), 80).into()).await?;
        exchange(&mut socket, b"x").await?;
    }
    Ok(())
}

async fn untaken_is_carried_elsewhere(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, well) = (world.served("client", 1).await?, world.served("well", 2).await?);
    let untaken = world.pod("untaken", 3)?;
    let port = well.echo().await?.port();
    let listener = TcpListener::bind((untaken.ip, TUNNEL)).await?;
    let certificate = Rc::new(world.ca.issue(&untaken.pod.identity));
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(take_nothing(Rc::clone(&certificate), stream));
        }
    });
    world.apply([
        service("shop", world.ip(9)).into(),
        well.behind("shop", &[(80, port)]).into(),
        untaken.behind("shop", &[(80, port)]).into(),
    ]);
    for _ in 0..30 {
        let mut socket = world.connect(&client, (world.ip(9), 80).into()).await?;
        exchange(&mut socket, b"hello").await?;
        exchange(&mut socket, b"and more").await?;
    }
    Ok(())
}

/// A proxy that accepts each stream, and says after its first bytes that its application took none.
async fn take_nothing(
    certificate: Rc<WorkloadCertificate>,
    stream: TcpStream,
) -> anyhow::Result<()> {
    let mut connection = h2::server::handshake(accept(&certificate, stream).await?).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        let mut sending = respond.send_response(Response::new(()), false)?;
        spawn_local(async move {
            let _bytes = request.into_body().data().await;
            sending.send_reset(h2::Reason::REFUSED_STREAM);
        });
    }
    Ok(())
}

async fn restarted_peer_costs_no_connection(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let client = world.served("client", 1).await?;
    let server = world.pod("server", 2)?;
    world.apply([server.workload().into()]);
    let listening = world.listen(&server).await?;
    let echo = server.echo().await?;
    exchange(&mut world.connect(&client, echo).await?, b"before").await?;
    // Every tunnel of the pod dies with it.
    listening.abort();
    world.force().await?;
    let again = world.pod("server", 2)?;
    tokio::task::yield_now().await;
    world.listen(&again).await?;
    let client = world.pod("client", 1)?;
    exchange(&mut world.connect(&client, echo).await?, b"after").await?;
    Ok(())
}

async fn open_connections_are_listed(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    let mut socket = world.connect(&client, echo).await?;
    exchange(&mut socket, b"hello").await?;
    let entries = world.part.live.entries();
    ensure!(entries.len() == 2, "{entries:?}");
    for entry in &entries {
        ensure!((entry.protocol, entry.received_bytes) == ("HBONE", 5), "{entry:?}");
        ensure!(entry.original_dst == echo.to_string(), "{entry:?}");
    }
    let pods: BTreeSet<_> = entries.iter().map(|one| &*one.pod).collect();
    ensure!(pods == BTreeSet::from(["team/client", "team/server"]), "{pods:?}");
    Ok(())
}
