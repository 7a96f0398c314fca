//! A request over an open connection allocates nothing, from application to application (design D1).

mod counting;

use std::future::Future;

use benches::micro::path::{Connection, Path};
use counting::Counting;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Buffers have grown and lists have room.
const BEFORE: usize = 500;
const REQUESTS: usize = 1000;

fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().expect("an event loop");
    LocalSet::new().block_on(&runtime, test)
}

/// Allocations of `REQUESTS` requests of `length` bytes, which go over each connection in turn.
async fn allocations(connections: &mut [Connection], length: usize) -> counting::Count {
    let request = vec![7; length];
    let mut answer = vec![0; length];
    for turn in 0..BEFORE {
        let connection = turn % connections.len();
        connections[connection].ask(&request, &mut answer).await.expect("the path holds");
    }
    counting::start();
    for turn in 0..REQUESTS {
        let connection = turn % connections.len();
        connections[connection].ask(&request, &mut answer).await.expect("the path holds");
    }
    counting::stop()
}

async fn connections(path: &Path, count: usize) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(path.connect().await.expect("the tunnel is accepted"));
    }
    connections
}

#[test]
fn request_and_answer_of_one_kib_allocate_nothing() {
    on_one_thread(async {
        let path = Path::open().await.expect("loopback and TLS work");
        let mut one = connections(&path, 1).await;
        let count = allocations(&mut one, 1024).await;
        assert_eq!(count.allocations, 0, "{count}");
    });
}

#[test]
fn connections_that_take_turns_allocate_nothing_either() {
    on_one_thread(async {
        let path = Path::open().await.expect("loopback and TLS work");
        let mut many = connections(&path, 8).await;
        let count = allocations(&mut many, 1024).await;
        assert_eq!(count.allocations, 0, "{count}");
    });
}
