//! What keeps requests going when endpoints do not. Pure: no I/O, no clock of its own.

pub mod backoff;
pub mod budget;
pub mod deadline;
pub mod retry;
