//! Bytes, ends and other endpoints.

use shared::mesh::Protocol;
use shared::telemetry::metrics::Exposition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::flows::world::{World, run, service};

async fn exchange(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).await.unwrap();
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, text);
}

#[tokio::test]
async fn tunnel_carries_bytes_and_both_ends_tell_it() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        let mut socket = world.connect(&client, echo).await;
        exchange(&mut socket, b"hello").await;
        socket.shutdown().await.unwrap();
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
        let there = world.line(&["direction=\"outbound\"", "complete"]).await;
        let here = world.line(&["direction=\"inbound\"", "complete"]).await;
        for line in [&there, &here] {
            assert!(line.contains("src.identity=\"spiffe://cluster.local/ns/team/sa/client\""));
            assert!(line.contains("dst.identity=\"spiffe://cluster.local/ns/team/sa/server\""));
            assert!(line.contains(&format!("dst.hbone_addr={echo}")), "{line}");
            assert!(line.contains("bytes_sent=5 bytes_recv=5"), "{line}");
        }
        let id = |line: &str| line.split("connection=\"").nth(1).map(str::to_owned);
        assert_eq!(id(&there), id(&here));
        assert!(id(&there).is_some());
        assert!(world.part.live.is_empty() && world.part.permits.is_empty());
        world.part.traffic.flush();
        let metrics = world.registry.expose(Exposition::Prometheus).unwrap();
        let count = |name: &str| metrics.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(count("istio_tcp_connections_opened_total{"), 2, "{metrics}");
        assert_eq!(count("istio_tcp_connections_closed_total{"), 2, "{metrics}");
    })
    .await;
}

#[tokio::test]
async fn server_may_speak_first_and_half_close() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let (listener, address) = server.application().await;
        spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"220 ready").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"after your end");
        });
        let mut socket = world.connect(&client, address).await;
        let mut banner = Vec::new();
        socket.read_to_end(&mut banner).await.unwrap();
        assert_eq!(banner, b"220 ready");
        socket.write_all(b"after your end").await.unwrap();
        socket.shutdown().await.unwrap();
        world.line(&["direction=\"inbound\"", "complete", "bytes_sent=9 bytes_recv=14"]).await;
    })
    .await;
}

#[tokio::test]
async fn megabytes_arrive_whole() {
    run(async {
        const LENGTH: usize = 24 << 20;
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        let socket = world.connect(&client, echo).await;
        let (mut read, mut write) = socket.into_split();
        spawn_local(async move {
            let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
            for _ in 0..LENGTH >> 20 {
                write.write_all(&block).await.unwrap();
            }
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), LENGTH);
        let intact = |(at, byte): (usize, &u8)| *byte == ((at % (1 << 20)) % 251) as u8;
        assert!(received.iter().enumerate().all(intact));
    })
    .await;
}

#[tokio::test]
async fn many_connections_share_few_tunnels() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        let mut sockets = Vec::new();
        for _ in 0..50 {
            let mut socket = world.connect(&client, echo).await;
            exchange(&mut socket, b"x").await;
            sockets.push(socket);
        }
        assert_eq!(world.part.pool(&client.pod).connections(), 1);
        assert_eq!(world.part.permits.len(), 50);
    })
    .await;
}

#[tokio::test]
async fn outside_destination_is_dialled_plainly() {
    run(async {
        let world = World::new();
        let client = world.served("client", 1).await;
        let outside = world.pod("outside", 2);
        let echo = outside.echo().await;
        exchange(&mut world.connect(&client, echo).await, b"hello").await;
        let plain = outside.workload();
        world.apply([shared::mesh::Workload { protocol: Protocol::Tcp, ..plain }.into()]);
        exchange(&mut world.connect(&client, echo).await, b"again").await;
    })
    .await;
}

#[tokio::test]
async fn dead_endpoint_costs_no_connection() {
    run(async {
        let world = World::new();
        let (client, well) = (world.served("client", 1).await, world.served("well", 2).await);
        let (dead, idle) = (world.pod("dead", 3), world.served("idle", 4).await);
        let port = well.echo().await.port();
        // `dead` has no listener for tunnels, `idle` no application: 503.
        world.apply([
            service("shop", world.ip(9)).into(),
            well.behind("shop", &[(80, port)]).into(),
            dead.behind("shop", &[(80, port)]).into(),
            idle.behind("shop", &[(80, port)]).into(),
        ]);
        for _ in 0..30 {
            let mut socket = world.connect(&client, (world.ip(9), 80).into()).await;
            exchange(&mut socket, b"x").await;
        }
    })
    .await;
}

#[tokio::test]
async fn restarted_peer_costs_no_connection() {
    run(async {
        let world = World::new();
        let client = world.served("client", 1).await;
        let server = world.pod("server", 2);
        world.apply([server.workload().into()]);
        let listening = world.listen(&server).await;
        let echo = server.echo().await;
        exchange(&mut world.connect(&client, echo).await, b"before").await;
        // Every tunnel of the pod dies with it.
        listening.abort();
        world.force().await;
        let again = world.pod("server", 2);
        tokio::task::yield_now().await;
        world.listen(&again).await;
        let client = world.pod("client", 1);
        exchange(&mut world.connect(&client, echo).await, b"after").await;
    })
    .await;
}

#[tokio::test]
async fn open_connections_are_listed() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        let mut socket = world.connect(&client, echo).await;
        exchange(&mut socket, b"hello").await;
        let entries = world.part.live.entries();
        assert_eq!(entries.len(), 2);
        for entry in &entries {
            assert_eq!((entry.protocol, entry.received_bytes), ("HBONE", 5));
            assert_eq!(entry.original_dst, echo.to_string());
        }
        let pods: std::collections::BTreeSet<_> = entries.iter().map(|one| &*one.pod).collect();
        assert_eq!(pods.into_iter().collect::<Vec<_>>(), ["team/client", "team/server"]);
    })
    .await;
}
