"""The run's system metadata: one document composed of the inventories of all nodes."""
