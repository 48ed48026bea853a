"""Accelerators: one JSON file each, every number with its source. Adding a device is adding a file.

Peaks are dense: marketing figures "with sparsity" never get in. The file's name is the device's name.
"""

from fxmeter.models.devices.device import Device
from fxmeter.models.devices.lookup import device, device_names

__all__ = ["Device", "device", "device_names"]
