"""Sockets, connections, Host header checks, and the shapes of requests and answers."""
