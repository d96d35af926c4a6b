"""HTTP endpoints of the embedded tracker, one module for each group."""
