//! Culvert's HTTP proxy. This version parses its command line and says that it does not serve yet.

pub mod app;
