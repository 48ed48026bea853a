"""Real runs laid over their prediction: reading profiler traces, matching their ops with those of a priced pass."""
