"""Asking the manager and the runners over their Unix sockets, and noticing that an HTTP client has hung up."""
