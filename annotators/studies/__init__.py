"""Questions asked of many stages: sweeps, capacity, cross-checks. No input or output, no formatting."""
