"""Probes of this node's hardware and software; each value that cannot be read is ``None``."""
