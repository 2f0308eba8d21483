"""Faults put into real runs on purpose: kills, full disks, torn files, hostile input, long runs. Not installed."""
