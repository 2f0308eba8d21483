"""Faults injected into real runs: kills, full disks, torn files, signals, long runs. Not installed."""
