"""What a person sees at a terminal: rich tables of what was computed below. No arithmetic.

A value gets its unit (GiB, TFLOP, ms) from :func:`fxmeter.annotators.units.quantity`, and which one suits it there.
"""
