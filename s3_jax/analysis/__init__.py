"""Costs of programs, read from their compiled form, also for devices that are not attached."""
