use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A connected pair of loopback sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// A client and a server with a copy between them.
async fn joined() -> (TcpStream, TcpStream, TcpStream, TcpStream) {
    let (client, near) = pair().await;
    let (far, server) = pair().await;
    (client, near, far, server)
}

#[tokio::test]
async fn both_directions_flow_and_counters_follow() {
    let (mut client, near, far, mut server) = joined().await;
    let counters = Counters::default();
    let talk = async {
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"hello");
        server.write_all(b"and goodbye").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"and goodbye");
    };
    let (copied, ()) = tokio::join!(Copy::new(near, far, &counters), talk);
    copied.unwrap();
    assert_eq!((counters.forward.get(), counters.back.get()), (5, 11));
}

#[tokio::test]
async fn server_may_speak_first_and_close_first() {
    let (mut client, near, far, mut server) = joined().await;
    let counters = Counters::default();
    let talk = async {
        server.write_all(b"220 ready").await.unwrap();
        server.shutdown().await.unwrap();
        let mut banner = Vec::new();
        client.read_to_end(&mut banner).await.unwrap();
        assert_eq!(banner, b"220 ready");
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        let mut farewell = Vec::new();
        server.read_to_end(&mut farewell).await.unwrap();
        assert_eq!(farewell, b"bye");
    };
    let (copied, ()) = tokio::join!(Copy::new(near, far, &counters), talk);
    copied.unwrap();
}

#[tokio::test]
async fn reset_passes_on_as_reset() {
    let (client, near, far, mut server) = joined().await;
    let counters = Counters::default();
    let mut copy = Copy::new(near, far, &counters);
    client.set_zero_linger().unwrap();
    drop(client);
    let error = (&mut copy).await.unwrap_err();
    assert_eq!(error.side, Side::Near);
    assert!(matches!(error.cut, Cut::Reset));
    copy.abort(Abort::Cut);
    let seen = server.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(seen.kind(), ErrorKind::ConnectionReset);
}

/// Envoy's client saw END_STREAM before the RST_STREAM of an application that had reset.
#[tokio::test]
async fn reset_that_the_sender_meets_does_not_look_like_an_end() {
    let (mut client, near, far, mut server) = joined().await;
    server.write_all(b"half an ans").await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    // Sent before the copy first looks: it meets the reset as it passes this on.
    client.write_all(b"more").await.unwrap();
    near.readable().await.unwrap();
    far.ready(tokio::io::Interest::ERROR).await.unwrap();
    let counters = Counters::default();
    let mut copy = Copy::new(near, far, &counters);
    let error = (&mut copy).await.unwrap_err();
    assert_eq!(error.side, Side::Far);
    copy.abort(Abort::Cut);
    let mut heard = Vec::new();
    let seen = client.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!(seen.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn dropped_copy_does_not_look_like_an_end() {
    let (mut client, near, far, mut server) = joined().await;
    drop(Copy::new(near, far, &Counters::default()));
    for socket in [&mut client, &mut server] {
        let seen = socket.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(seen.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn bulk_survives_a_slow_reader() {
    const LENGTH: usize = 8 << 20;
    let (mut client, near, far, mut server) = joined().await;
    let counters = Counters::default();
    let send = async {
        client.write_all(&vec![7; LENGTH]).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let receive = async {
        let (mut total, mut chunk) = (0, [0; 3000]);
        loop {
            let length = server.read(&mut chunk).await.unwrap();
            if length == 0 {
                server.shutdown().await.unwrap();
                break total;
            }
            total += length;
            tokio::task::yield_now().await;
        }
    };
    let (copied, (), total) = tokio::join!(Copy::new(near, far, &counters), send, receive);
    copied.unwrap();
    assert_eq!(total, LENGTH);
    assert_eq!(counters.forward.get(), LENGTH as u64);
}

/// A far side that its proxy resets as refused after it has heard `hears` bytes.
struct Refuses {
    hears: usize,
    heard: Vec<u8>,
}

impl Endpoint for Refuses {
    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<Result<Received, Cut>> {
        match self.heard.len() < self.hears {
            true => Poll::Pending,
            false => Poll::Ready(Err(Cut::Undelivered)),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        self.heard.extend_from_slice(bytes);
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        Poll::Ready(Ok(()))
    }

    fn consumed(&mut self, _: usize) {}

    fn tells_end_after_cut(&self) -> bool {
        true
    }

    fn abort(self, _: Abort) {}
}

#[tokio::test]
async fn what_the_far_side_never_took_is_sent_to_another_one() {
    let (mut client, near) = pair().await;
    client.write_all(b"hello ").await.unwrap();
    near.readable().await.unwrap();
    let counters = Counters::default();
    let refuses = Refuses { hears: 6, heard: Vec::new() };
    let mut copy = Copy::resumable(near, refuses, &counters, Vec::new());
    let error = (&mut copy).await.unwrap_err();
    assert!(matches!(error, Error { side: Side::Far, cut: Cut::Undelivered }));
    let (near, read) = copy.reclaim().unwrap();
    assert_eq!(read, b"hello ");
    client.write_all(b"again").await.unwrap();
    client.shutdown().await.unwrap();
    let (far, mut server) = pair().await;
    let counters = Counters::default();
    let talk = async {
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello again");
        drop(server);
    };
    let (copied, ()) = tokio::join!(Copy::resumable(near, far, &counters, read), talk);
    copied.unwrap();
    assert_eq!(counters.forward.get(), 11);
}

#[tokio::test]
async fn what_is_no_longer_whole_or_was_answered_is_not_given_back() {
    for (length, answered) in [(20 << 10, false), (6, true)] {
        let (mut client, near, far, mut server) = joined().await;
        client.write_all(&vec![7; length]).await.unwrap();
        if answered {
            server.write_all(b"220 ready").await.unwrap();
        }
        let counters = Counters::default();
        let mut copy = Copy::resumable(near, far, &counters, Vec::new());
        let flows = async {
            let mut heard = vec![0; length];
            server.read_exact(&mut heard).await.unwrap();
            if answered {
                client.read_exact(&mut [0; 9]).await.unwrap();
            }
        };
        tokio::select! {
            _ = &mut copy => panic!("it ended"),
            () = flows => {}
        }
        assert!(copy.reclaim().is_none(), "{length} bytes, answered {answered}");
    }
}

#[tokio::test]
async fn copy_of_two_sockets_is_small() {
    let (_client, near, far, _server) = joined().await;
    let counters = Counters::default();
    assert!(size_of_val(&Copy::new(near, far, &counters)) <= 256);
}
