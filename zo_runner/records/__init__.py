"""The run directory on disk: journal, result, locks, tracker. No torch."""
