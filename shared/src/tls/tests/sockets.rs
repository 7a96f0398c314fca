//! Bad peers over real sockets: each is turned away, and the next good one is not affected.

use std::future::poll_fn;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What `server` says to a client with `config`; without one, to rubbish instead of TLS.
async fn verdict(
    listener: &TcpListener,
    server: &WorkloadCertificate,
    config: Option<Arc<ClientConfig>>,
) -> Result<SpiffeId, Error> {
    let connecting = async {
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let Some(config) = config else {
            socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
            return;
        };
        // TLS 1.3: the client may believe in success before the server has judged it.
        if let Ok((mut stream, _)) = connect(socket, config).await {
            let _ = poll_fn(|cx| stream.poll_read(cx)).await;
        }
    };
    let accepting = async {
        let (socket, _) = listener.accept().await.unwrap();
        let (_, peer) = accept(socket, server.server_config()).await?;
        Ok(peer.id().clone())
    };
    tokio::join!(connecting, accepting).1
}

#[tokio::test]
async fn bad_clients_are_turned_away_and_good_ones_pass_between_them() {
    let (ours, foreign) = (ca(), ca());
    let server = ours.issue(&id(DATABASE));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = |certificate: WorkloadCertificate| certificate.client_config(&[id(DATABASE)]);

    let mut anonymous = (*config(ours.issue(&id(WEB)))).clone();
    anonymous.client_auth_cert_resolver = Arc::new(NoCertificate);
    let pair = foreign.issue_pem(&id(WEB));
    let both = format!("{}{}", ours.root_pem(), foreign.root_pem());
    let (chain, key) = (pair.chain.as_bytes(), pair.key.as_bytes());
    let stranger = WorkloadCertificate::from_pem(chain, key, both.as_bytes()).unwrap();
    let bad = [
        Some(Arc::new(anonymous)),
        Some(config(stranger)),
        Some(config(ours.issue_expired(&id(WEB)))),
        Some(config(ours.issue(&id("spiffe://other.test/ns/team/sa/web")))),
        None,
    ];
    for client in bad {
        let refused = verdict(&listener, &server, client).await;
        assert!(matches!(refused, Err(Error::Protocol(_) | Error::Refused(_))), "{refused:?}");
        let good = verdict(&listener, &server, Some(config(ours.issue(&id(WEB))))).await;
        assert_eq!(good.unwrap(), id(WEB));
    }
}
