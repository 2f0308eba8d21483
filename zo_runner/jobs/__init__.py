"""Carry out what `job=` asks, from configuration to result.json."""
