"""What docs/signal.md reports, as programs: each runs zo-run and writes down what came out."""
