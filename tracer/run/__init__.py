"""From a model and a scenario to a pass: inputs, cache, attention, scans."""
