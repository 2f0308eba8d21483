"""Faults on purpose: broken input, broken files, kills. Not part of the installed package."""
