"""Costs of compiled programs, read from the programs themselves, also for devices not attached."""
