//! An application whose every byte is the test's: what it does with a connection is a function.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::Shutdown;

use crate::pod::Pod;
use crate::wire::{Heard, Wire};

/// A listener in a pod; it ends when dropped.
#[derive(Debug)]
pub struct Backend {
    listener: TcpListener,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    heard: Mutex<Vec<Heard>>,
    accepted: AtomicUsize,
    ended: AtomicUsize,
}

/// A connection of the backend.
#[derive(Debug)]
pub struct Guest {
    /// The connection.
    pub wire: Wire,
    state: Arc<State>,
}

/// A listener in `pod`, in both families.
///
/// # Errors
/// The port is taken.
pub fn listen(pod: &Pod, port: u16) -> io::Result<TcpListener> {
    pod.netns().run(|| TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))
}

impl Backend {
    /// Listens in `pod`; `serve` has each connection in a thread of its own and closes it by
    /// returning.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start<F>(pod: &Pod, port: u16, serve: F) -> io::Result<Self>
    where
        F: Fn(&mut Guest) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = listen(pod, port)?;
        let state = Arc::<State>::default();
        let (incoming, shared, serve) =
            (listener.try_clone()?, Arc::clone(&state), Arc::new(serve));
        std::thread::spawn(move || {
            // Ends when the listener is shut down.
            while let Ok((stream, _)) = incoming.accept() {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                let (state, serve) = (Arc::clone(&shared), Arc::clone(&serve));
                std::thread::spawn(move || {
                    if let Ok(wire) = Wire::of(stream) {
                        // The other side may do what it wants.
                        let _ = serve(&mut Guest { wire, state: Arc::clone(&state) });
                    }
                    state.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { listener, state })
    }

    /// The requests so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        self.state.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are over.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.state.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Wakes the thread that accepts, which is all that keeps it.
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
    }
}

impl Guest {
    /// The next request, which the backend remembers; none when the client has ended.
    ///
    /// # Errors
    /// It is cut short.
    pub fn request(&mut self) -> io::Result<Option<Heard>> {
        let heard = self.wire.request()?;
        if let Some(heard) = &heard {
            let mut all = self.state.heard.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(heard.clone());
        }
        Ok(heard)
    }

    /// Sends.
    ///
    /// # Errors
    /// The client does not take it.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.say(bytes)
    }
}
