"""Side-by-side measurements: `python -m benchmarks` times ways to compute the same thing in turn, in one run."""
