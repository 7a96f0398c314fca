//! Wire messages of Istio's certificate service.
//!
//! The `.proto` files beside `src` are ours, with Istio's names and field numbers. The code under
//! `src/generated` is made from them without protoc, and committed: building needs no generator.
//! `cargo test -p culvert-proto` fails when it is stale;
//! `cargo test -p culvert-proto -- --ignored regenerate` makes it anew.

/// Package `istio`.
pub mod istio {
    /// Package `istio.v1`.
    pub mod v1 {
        /// Package `istio.v1.auth`: the certificate service.
        #[expect(unused_qualifications, reason = "generated code")]
        pub mod auth {
            include!("generated/istio.v1.auth.rs");
        }
    }
}
