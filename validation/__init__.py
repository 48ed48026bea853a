"""What holds fxmeter to the truth: real runs, torch's own counters, every type of model.

Run a check as ``python -m validation.NAME``.
"""
