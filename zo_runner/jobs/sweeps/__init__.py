"""Named sweeps: plan, runs, outputs."""
