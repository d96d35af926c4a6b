"""Probes of this node's hardware and software; a value that cannot be read is ``None``."""
