//! Capture: network namespaces, nftables, routes and socket options.
