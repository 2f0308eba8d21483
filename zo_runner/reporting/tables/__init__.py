"""Matched-budget comparison tables."""
