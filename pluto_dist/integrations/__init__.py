"""Integrations with training frameworks, one module each. None is imported before it is used."""
