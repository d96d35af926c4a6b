"""Composes the run's system metadata: one document from the inventories of all nodes."""
