//! Life of a connection that reaches a pod.
