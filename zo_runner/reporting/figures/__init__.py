"""Line charts of sweeps and probes."""
