//! Which endpoint: two random choices over load, within what locality allows.
//!
//! [`preferred`] keeps the candidates that the service's locality mode allows; [`Loads::order`]
//! puts them in the order in which a connection tries them.
//! Invariants: pure over (candidates, loads, now, random numbers); a candidate is offered once; an
//! ejected one never comes before one that is not, except in panic.
//! Not here: which endpoints a service has (`mesh`), address and port of the chosen one (`resolve`).

mod load;
mod loads;
mod locality;

pub use loads::{Config, InFlight, Loads};
pub use locality::{preferred, rank};
