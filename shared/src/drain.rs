//! Ending connections in good order.
