//! The metrics and the access log of the node proxy, from the life of a connection.
