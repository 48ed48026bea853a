"""Speed: fxmeter beside the public tools, closed forms and sweeps. Run one as ``python -m benchmarks.NAME``."""
