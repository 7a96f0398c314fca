//! Metrics, the access log and process logs.
