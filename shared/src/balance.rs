//! Which endpoint: two random choices over load.
