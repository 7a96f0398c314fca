//! How a connection ended: one cause, one name, whose fault, and whether to retry.
