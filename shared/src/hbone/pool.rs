//! HBONE connection pool: many tunnels, few mTLS connections. One per worker and pod.
//!
//! Invariants: a key never has two handshakes in flight; a connection is used while it has room
//! and is not going away, and comes back into use as its streams end.
//! Not here: what a key is and how to dial (`ztunnel`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::client::{Client, client};
use super::driver::Driver;
use super::error::Error;
use super::stream::Stream;
use super::transport::Transport;
use super::{Config, Reason, Request, Response};
use crate::workers::inherit;

/// Connections by key. `P` is what dialling learned about the peer, `E` why dialling failed.
#[derive(Debug)]
pub struct Pool<K, P, E> {
    shared: Rc<Shared<K, P, E>>,
}

/// A stream from a pool.
#[derive(Debug)]
pub struct Opened<P> {
    /// The peer's answer; only status 200 is a tunnel.
    pub response: Response,
    /// The tunnel.
    pub stream: Stream,
    /// What dialling learned about the peer.
    pub peer: Rc<P>,
    /// Whether the connection existed before.
    pub reused: bool,
}

/// Why a pool gave no stream.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// Dialling failed; everybody who waited for that handshake gets the same error.
    #[error("dial the tunnel peer")]
    Dial(Rc<E>),
    /// The connection or the peer refused the stream.
    #[error("open a tunnel stream")]
    Stream(#[source] Error),
    /// The pool is draining.
    #[error("tunnel pool is draining")]
    Draining,
}

#[derive(Debug)]
struct Shared<K, P, E> {
    config: Config,
    idle_timeout: Duration,
    draining: Cell<bool>,
    next_id: Cell<u64>,
    entries: RefCell<HashMap<K, Entry<P, E>>>,
}

#[derive(Debug)]
struct Entry<P, E> {
    connections: Vec<Connection<P>>,
    dial: Option<Rc<Dial<E>>>,
}

#[derive(Debug)]
struct Connection<P> {
    id: u64,
    client: Client,
    peer: Rc<P>,
    used: Cell<Instant>,
}

/// A handshake on its way, and everybody who waits for it.
#[derive(Debug)]
struct Dial<E> {
    failed: RefCell<Option<Rc<E>>>,
    done: Cell<bool>,
    notify: Notify,
}

/// Istio ztunnel `POOL_UNUSED_RELEASE_TIMEOUT`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Connections that crowds of streams may have to one peer.
const MOST_BESIDE: usize = 16;
/// How often a stream is tried again on another connection because one was going away.
const MOVES: usize = 3;

impl<K, P, E> Pool<K, P, E>
where
    K: Hash + Eq + Clone + 'static,
    P: 'static,
    E: 'static,
{
    /// An empty pool whose connections use `config`.
    pub fn new(config: Config) -> Self {
        Self::with_idle_timeout(config, IDLE_TIMEOUT)
    }

    /// As [`Pool::new`], with another time after which an unused connection is closed.
    pub fn with_idle_timeout(config: Config, idle_timeout: Duration) -> Self {
        let shared = Shared {
            config,
            idle_timeout,
            draining: Cell::new(false),
            next_id: Cell::new(0),
            entries: RefCell::new(HashMap::new()),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Opens a stream to `key`, on the connection with the fewest streams. If none has room, one
    /// is dialled; concurrent callers for a key share a single handshake and its error. From `crowd`
    /// streams per connection on, a further connection is dialled beside them, up to 16: a peer with
    /// several workers can then use them all. From twice as many on, streams wait for it.
    ///
    /// # Cancel safety
    /// Safe: dropping the future leaves the handshake to the other waiters and to the pool.
    pub async fn open<D, F, T>(
        &self,
        key: &K,
        crowd: usize,
        request: &Request,
        dial: D,
    ) -> Result<Opened<P>, OpenError<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<(T, P), E>> + 'static,
        T: Transport + Unpin,
    {
        let mut moves = 0;
        let mut waited = false;
        // One more connection cannot be had: the crowded ones serve.
        let mut crowded = false;
        loop {
            if self.shared.draining.get() {
                return Err(OpenError::Draining);
            }
            let chosen = self.shared.choose(key);
            let stands = chosen.is_some();
            if let Some((client, peer)) = chosen
                && (crowded || self.shared.has_room(key, &client, crowd, &dial))
            {
                match client.open(request).await {
                    Ok((response, stream)) => {
                        return Ok(Opened { response, stream, peer, reused: !waited });
                    }
                    Err(error) if moves < MOVES && may_move(&error, &client) => moves += 1,
                    Err(error) => return Err(OpenError::Stream(error)),
                }
                continue;
            }
            waited = true;
            let flight = self.shared.join_or_start(key, &dial);
            match flight.wait().await {
                Err(_) if stands => crowded = true,
                Err(error) => return Err(OpenError::Dial(error)),
                Ok(()) => {}
            }
        }
    }

    /// Connections that are open, for all keys.
    pub fn connections(&self) -> usize {
        self.shared.entries.borrow().values().map(|entry| entry.connections.len()).sum()
    }

    /// Refuses new streams and closes each connection when its last stream has ended.
    pub fn drain(&self) {
        self.shared.draining.set(true);
        for (_, entry) in self.shared.entries.borrow_mut().drain() {
            for connection in entry.connections {
                connection.client.drain();
            }
        }
    }
}

impl<K, P, E> Clone for Pool<K, P, E> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

/// Nothing was processed, so the stream may go to another connection.
fn may_move(error: &Error, client: &Client) -> bool {
    match error {
        Error::AtLimit | Error::GoingAway => true,
        Error::Reset(Reason::REFUSED_STREAM) => client.is_going_away(),
        _ => false,
    }
}

impl<K, P, E> Shared<K, P, E>
where
    K: Hash + Eq + Clone + 'static,
    P: 'static,
    E: 'static,
{
    fn choose(&self, key: &K) -> Option<(Client, Rc<P>)> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        entry.connections.retain(|connection| !connection.client.is_going_away());
        let usable = entry.connections.iter().filter(|connection| connection.client.is_usable());
        let least = usable.min_by_key(|connection| connection.client.active_streams())?;
        least.used.set(Instant::now());
        Some((least.client.clone(), Rc::clone(&least.peer)))
    }

    /// Whether `client`, the least crowded connection, is to take one more stream.
    fn has_room<D, F, T>(self: &Rc<Self>, key: &K, client: &Client, crowd: usize, dial: &D) -> bool
    where
        D: Fn() -> F,
        F: Future<Output = Result<(T, P), E>> + 'static,
        T: Transport + Unpin,
    {
        let streams = client.active_streams();
        let known = self.entries.borrow().get(key).map_or(0, |entry| entry.connections.len());
        if streams < crowd || known >= MOST_BESIDE {
            return true;
        }
        self.join_or_start(key, dial);
        streams < crowd.saturating_mul(2)
    }

    fn join_or_start<D, F, T>(self: &Rc<Self>, key: &K, dial: &D) -> Rc<Dial<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<(T, P), E>> + 'static,
        T: Transport + Unpin,
    {
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .entry(key.clone())
            .or_insert_with(|| Entry { connections: Vec::new(), dial: None });
        if let Some(flight) = &entry.dial {
            return Rc::clone(flight);
        }
        let flight = Rc::new(Dial {
            failed: RefCell::new(None),
            done: Cell::new(false),
            notify: Notify::new(),
        });
        entry.dial = Some(Rc::clone(&flight));
        let landing =
            Landing { shared: Rc::downgrade(self), key: key.clone(), flight: Rc::clone(&flight) };
        // Owned by the runtime of the worker: it ends with the handshake, whose time the dialler
        // limits, and then with the connection.
        spawn_local(inherit(run(landing, dial())));
        flight
    }

    fn add(&self, key: &K, client: Client, peer: P) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let used = Cell::new(Instant::now());
        let connection = Connection { id, client, peer: Rc::new(peer), used };
        if let Some(entry) = self.entries.borrow_mut().get_mut(key) {
            entry.connections.push(connection);
        }
        id
    }

    fn remove(&self, key: &K, id: u64) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else { return };
        let position = entry.connections.iter().position(|connection| connection.id == id);
        let removed = position.map(|position| entry.connections.swap_remove(position));
        if entry.connections.is_empty() && entry.dial.is_none() {
            entries.remove(key);
        }
        drop(entries);
        drop(removed);
    }

    /// Whether the connection has been unused for too long.
    fn is_stale(&self, key: &K, id: u64) -> bool {
        let entries = self.entries.borrow();
        let connections = entries.get(key).map(|entry| &entry.connections);
        let Some(connection) =
            connections.and_then(|all| all.iter().find(|connection| connection.id == id))
        else {
            return false;
        };
        if connection.client.active_streams() > 0 {
            connection.used.set(Instant::now());
        }
        connection.used.get().elapsed() >= self.idle_timeout
    }
}

impl<E> Dial<E> {
    /// Waits until the handshake is over, one way or the other.
    async fn wait(&self) -> Result<(), Rc<E>> {
        let notified = self.notify.notified();
        if !self.done.get() {
            notified.await;
        }
        self.failed.borrow().clone().map_or(Ok(()), Err)
    }
}

/// Reports the end of a handshake, also when it panicked or its worker stopped.
struct Landing<K: Hash + Eq, P, E> {
    shared: Weak<Shared<K, P, E>>,
    key: K,
    flight: Rc<Dial<E>>,
}

impl<K: Hash + Eq, P, E> Drop for Landing<K, P, E> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut entries = shared.entries.borrow_mut();
            if let Some(entry) = entries.get_mut(&self.key) {
                entry.dial = None;
                if entry.connections.is_empty() {
                    entries.remove(&self.key);
                }
            }
        }
        self.flight.done.set(true);
        self.flight.notify.notify_waiters();
    }
}

/// The life of a pooled connection: handshake, traffic, end.
async fn run<K, P, E, F, T>(landing: Landing<K, P, E>, dial: F)
where
    K: Hash + Eq + Clone + 'static,
    P: 'static,
    E: 'static,
    F: Future<Output = Result<(T, P), E>>,
    T: Transport + Unpin,
{
    let dialled = Box::pin(dial).await;
    let Some(shared) = landing.shared.upgrade() else { return };
    let (transport, peer) = match dialled {
        Ok(dialled) => dialled,
        Err(error) => {
            landing.flight.failed.replace(Some(Rc::new(error)));
            return;
        }
    };
    if shared.draining.get() {
        return;
    }
    let (client, driver) = client(transport, shared.config.clone());
    let key = landing.key.clone();
    let id = shared.add(&key, client, peer);
    let idle_timeout = shared.idle_timeout;
    let pool = Rc::downgrade(&shared);
    drop(shared);
    drop(landing);
    tend(&pool, &key, id, driver, idle_timeout).await;
}

async fn tend<K, P, E, T>(
    pool: &Weak<Shared<K, P, E>>,
    key: &K,
    id: u64,
    mut driver: Driver<T>,
    idle_timeout: Duration,
) where
    K: Hash + Eq + Clone + 'static,
    P: 'static,
    E: 'static,
    T: Transport + Unpin,
{
    let result = loop {
        tokio::select! {
            result = &mut driver => break result,
            () = sleep(idle_timeout / 4) => {}
        }
        if let Some(shared) = pool.upgrade()
            && shared.is_stale(key, id)
        {
            shared.remove(key, id);
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "tunnel connection ended");
    }
    if let Some(shared) = pool.upgrade() {
        shared.remove(key, id);
    }
}
