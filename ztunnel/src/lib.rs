//! The node proxy: carries pod traffic over mutual TLS with the pods' own identities.
//!
//! | module | holds |
//! |---|---|
//! | [`outbound`] | life of a connection that an application opens |
//! | [`inbound`] | life of a connection that reaches a pod, tunnelled or plain |
//! | [`pods`] | which pods are served, and their listeners |
//! | [`redirect`] | capture: network namespaces, nftables, routes |
//! | [`ca`] | the embedded certificate authority |
//! | [`app`] | the process: parse, build, run, drain |

pub mod app;
pub mod ca;
pub mod config;
pub mod copy;
pub mod inbound;
pub mod metrics;
pub mod node;
pub mod outbound;
pub mod outcome;
pub mod pods;
pub mod redirect;
