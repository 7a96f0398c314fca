//! Which endpoint: two random choices over load, within what locality allows.
//!
//! [`candidates`] lists the endpoints of a service that can be reached; [`preferred`] keeps the candidates that the service's locality mode allows; [`Loads::order`]
//! puts them in the order in which a connection tries them; a [`Table`] gives keys to endpoints.
//! Invariants: pure over (candidates, loads, now, random numbers); a candidate is offered once; an
//! ejected one never comes before one that is not, except in panic.
//! Not here: which endpoints a service has (`mesh`).

mod candidates;
mod gone;
mod hash;
mod load;
mod loads;
mod locality;
mod table;

pub use candidates::{Candidate, Host, Wanted, candidates, host};
pub use gone::Gone;
pub use hash::xxh64;
pub use loads::{Config, InFlight, Loads, weighted};
pub use locality::{preferred, rank};
pub use table::Table;
