//! The pool: handshakes are shared, connections come back into use, nobody is left waiting.

use std::cell::Cell;
use std::time::Duration;

use super::*;

type Peer = Result<(Plain<DuplexStream>, usize), &'static str>;

/// A peer to dial, counting handshakes; each takes a second.
#[derive(Clone, Default)]
struct Network {
    dials: Rc<Cell<usize>>,
    down: Rc<Cell<bool>>,
    drainers: Rc<std::cell::RefCell<Vec<Drainer>>>,
}

impl Network {
    fn dial(&self) -> impl Future<Output = Peer> + use<> {
        let network = self.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            network.dials.set(network.dials.get() + 1);
            if network.down.get() {
                return Err("down");
            }
            let (near, far) = duplex(10_000);
            let server = Server::new(Plain(far), Config::server());
            network.drainers.borrow_mut().push(server.drainer());
            spawn_local(echo(server));
            Ok((Plain(near), network.dials.get()))
        }
    }
}

fn pool(max_streams: u32) -> Pool<&'static str, usize, &'static str> {
    Pool::new(Config { max_streams, ..Config::client() })
}

async fn open(
    pool: &Pool<&'static str, usize, &'static str>,
    network: &Network,
    key: &'static str,
) -> Result<Opened<usize>, OpenError<&'static str>> {
    pool.open(&key, usize::MAX, &request("a:1"), || network.dial()).await
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_handshake() {
    local(async {
        let (pool, network) = (pool(100), Network::default());
        let all = futures_util::future::join_all((0..50).map(|_| open(&pool, &network, "k"))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!((network.dials.get(), pool.connections()), (1, 1));
        assert!(open(&pool, &network, "k").await.unwrap().reused);
        assert!(!open(&pool, &network, "other").await.unwrap().reused);
        assert_eq!(network.dials.get(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_fails_all_who_waited_and_the_next_one_may_work() {
    local(async {
        let (pool, network) = (pool(100), Network::default());
        network.down.set(true);
        let all = futures_util::future::join_all((0..50).map(|_| open(&pool, &network, "k"))).await;
        assert!(
            all.iter().all(|one| matches!(one, Err(OpenError::Dial(error)) if **error == "down"))
        );
        assert_eq!(network.dials.get(), 1);
        network.down.set(false);
        assert!(open(&pool, &network, "k").await.is_ok());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_does_not_take_the_handshake_with_it() {
    local(async {
        let (pool, network) = (pool(100), Network::default());
        let mut first = Box::pin(open(&pool, &network, "k"));
        assert!(futures_util::future::poll_immediate(&mut first).await.is_none());
        let second = open(&pool, &network, "k");
        drop(first);
        assert!(second.await.is_ok());
        assert_eq!(network.dials.get(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn full_connections_are_joined_by_new_ones_and_come_back_into_use() {
    local(async {
        let (pool, network) = (pool(2), Network::default());
        let all = futures_util::future::join_all((0..8).map(|_| open(&pool, &network, "k"))).await;
        assert_eq!((network.dials.get(), pool.connections()), (4, 4));
        drop(all);
        let again =
            futures_util::future::join_all((0..8).map(|_| open(&pool, &network, "k"))).await;
        assert!(again.iter().all(|one| one.as_ref().unwrap().reused));
        assert_eq!(network.dials.get(), 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn crowds_get_connections_beside_and_do_without_if_there_are_none() {
    local(async {
        let (pool, network) = (pool(100), Network::default());
        let request_to_a = request("a:1");
        let crowded = || pool.open(&"k", 2, &request_to_a, || network.dial());
        let mut all = Vec::new();
        for _ in 0..9 {
            all.push(crowded().await.unwrap());
        }
        assert_eq!(pool.connections(), 3, "up to four share one, the ninth waits for the third");
        network.down.set(true);
        for _ in 0..20 {
            all.push(crowded().await.unwrap());
        }
        assert_eq!(pool.connections(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_go_away_are_not_used_again() {
    local(async {
        let (pool, network) = (pool(100), Network::default());
        let mut old = open(&pool, &network, "k").await.unwrap();
        network.drainers.borrow()[0].drain();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!open(&pool, &network, "k").await.unwrap().reused);
        send_all(&mut old.stream, b"still here").await.unwrap();
        old.stream.send_end();
        assert_eq!(receive_all(&mut old.stream).await.unwrap(), b"still here");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_and_busy_ones_kept() {
    local(async {
        let (pool, network) = (pool(100), Network::default());
        let busy = open(&pool, &network, "busy").await.unwrap();
        drop(open(&pool, &network, "idle").await.unwrap());
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(pool.connections(), 2);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(pool.connections(), 1);
        drop(busy);
        tokio::time::sleep(Duration::from_secs(500)).await;
        assert_eq!(pool.connections(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_pool_opens_nothing_and_lets_streams_finish() {
    local(async {
        let (pool, network) = (pool(100), Network::default());
        let mut last = open(&pool, &network, "k").await.unwrap();
        pool.drain();
        assert!(matches!(open(&pool, &network, "k").await, Err(OpenError::Draining)));
        send_all(&mut last.stream, b"bye").await.unwrap();
        last.stream.send_end();
        assert_eq!(receive_all(&mut last.stream).await.unwrap(), b"bye");
        assert_eq!(pool.connections(), 0);
    })
    .await;
}

/// What one waiting or running connection may cost, in bytes of future.
#[test]
fn futures_stay_within_their_budget() {
    let network = Network::default();
    let pool = pool(1);
    assert_size(&open(&pool, &network, "k"), 700);
    assert_size(&network.dial(), 400);
    assert!(size_of::<Driver<Plain<DuplexStream>>>() <= 400);
    assert!(size_of::<Stream>() <= 16);
}

fn assert_size<T>(value: &T, limit_bytes: usize) {
    let bytes = size_of_val(value);
    assert!(bytes <= limit_bytes, "{} takes {bytes} bytes", std::any::type_name::<T>());
}
