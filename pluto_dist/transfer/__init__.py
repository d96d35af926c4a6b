"""Exports runs from a tracker into a folder, and imports such a folder into another: see README.md."""
