"""Costs of compiled programs, including programs for devices that are not attached."""
