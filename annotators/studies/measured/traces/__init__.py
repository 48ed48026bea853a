"""Reading a profiler's trace: events, calls, modules, passes."""
