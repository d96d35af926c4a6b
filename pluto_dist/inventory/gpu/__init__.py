"""GPUs of this node: one module per vendor, and which rank uses which GPU."""
