//! Our byte path against rustls' own, over pipes.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::identity::test_util::TestCa;
use crate::identity::{SpiffeId, TrustDomain, WorkloadCertificate};
use crate::tls::server_name;

fn id(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/team/sa/{name}").parse().unwrap()
}

struct Certificates {
    web: WorkloadCertificate,
    database: WorkloadCertificate,
}

fn certificates() -> Certificates {
    let ca = TestCa::new(&TrustDomain::default());
    Certificates { web: ca.issue(&id("web")), database: ca.issue(&id("db")) }
}

async fn pair(pipe_bytes: usize) -> (Stream<DuplexStream>, Stream<DuplexStream>) {
    let certificates = certificates();
    let (near, far) = duplex(pipe_bytes);
    let client = connect(near, certificates.web.client_config(&[id("db")]));
    let server = accept(far, certificates.database.server_config());
    let (client, server) = tokio::join!(client, server);
    let ((client, server_id), (server, client_id)) = (client.unwrap(), server.unwrap());
    assert_eq!((server_id.id(), client_id.id()), (&id("db"), &id("web")));
    (client, server)
}

async fn write<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut Stream<T>, payload: &[u8]) {
    let mut output = BytesMut::from(payload);
    poll_fn(|cx| stream.poll_write(cx, &mut output)).await.unwrap();
}

async fn read<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut Stream<T>, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let piece = poll_fn(|cx| stream.poll_read(cx)).await.unwrap();
        assert!(!piece.is_empty(), "ended early");
        all.extend_from_slice(&piece);
    }
    all
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| ((index * 31) >> 3) as u8).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_through_pipes_of_any_size() {
    for pipe_bytes in [100, 5_000, 1 << 20] {
        let (mut client, mut server) = pair(pipe_bytes).await;
        let payload = pattern(300_000);
        let ((), received) =
            tokio::join!(write(&mut client, &payload), read(&mut server, payload.len()));
        assert_eq!(received, payload);
        let ((), received) =
            tokio::join!(write(&mut server, &payload), read(&mut client, payload.len()));
        assert_eq!(received, payload);
    }
}

#[tokio::test]
async fn one_direction_closes_while_the_other_goes_on() {
    let (mut client, mut server) = pair(1 << 16).await;
    poll_fn(|cx| client.poll_shutdown(cx)).await.unwrap();
    assert!(poll_fn(|cx| server.poll_read(cx)).await.unwrap().is_empty());
    write(&mut server, b"still here").await;
    assert_eq!(read(&mut client, 10).await, b"still here");
    let mut late = BytesMut::from(&b"x"[..]);
    assert!(poll_fn(|cx| client.poll_write(cx, &mut late)).await.is_err());
}

#[tokio::test]
async fn our_server_speaks_with_rustls_as_client_through_key_updates() {
    let certificates = certificates();
    let (near, far) = duplex(1 << 16);
    let connector = tokio_rustls::TlsConnector::from(certificates.web.client_config(&[id("db")]));
    let client = connector.connect(server_name(), near);
    let server = accept(far, certificates.database.server_config());
    let (client, server) = tokio::join!(client, server);
    let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
    for _ in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(read(&mut server, 4).await, b"ping");
        write(&mut server, b"pong").await;
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
    }
    poll_fn(|cx| server.poll_shutdown(cx)).await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn our_client_speaks_with_rustls_as_server_and_renews_worn_keys() {
    let certificates = certificates();
    let (near, far) = duplex(1 << 16);
    let acceptor = tokio_rustls::TlsAcceptor::from(certificates.database.server_config());
    let client = connect(near, certificates.web.client_config(&[id("db")]));
    let (client, server) = tokio::join!(client, acceptor.accept(far));
    let ((mut client, _), mut server) = (client.unwrap(), server.unwrap());
    for _ in 0..3 {
        client.protection.wear_out();
        write(&mut client, b"ping").await;
        let mut request = [0; 4];
        server.read_exact(&mut request).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(read(&mut client, 4).await, b"pong");
    }
    server.shutdown().await.unwrap();
    assert!(poll_fn(|cx| client.poll_read(cx)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_record_is_refused() {
    let (mut client, mut server) = pair(1 << 16).await;
    let mut output = BytesMut::from(&b"hello"[..]);
    client.protection.seal(&output.split(), &mut client.sealed).unwrap();
    let last = client.sealed.len() - 1;
    client.sealed[last] ^= 1;
    poll_fn(|cx| client.poll_write(cx, &mut output)).await.unwrap();
    assert!(poll_fn(|cx| server.poll_read(cx)).await.is_err());
}

#[tokio::test]
async fn a_peer_of_another_identity_is_refused_by_the_client() {
    let certificates = certificates();
    let (near, far) = duplex(1 << 16);
    let client = connect(near, certificates.web.client_config(&[id("somebody")]));
    let server = accept(far, certificates.database.server_config());
    let (client, server) = tokio::join!(client, server);
    let told = client.unwrap_err().to_string();
    assert_eq!(told, format!("peer {} is none of the expected identities", id("db")));
    assert!(matches!(server, Err(Error::Protocol(rustls::Error::AlertReceived(_)))), "{server:?}");
}
