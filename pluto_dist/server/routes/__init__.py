"""HTTP endpoints of the embedded tracker, one module per group."""
