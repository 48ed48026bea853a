"""Reports on one model: cost, time, capacity."""
