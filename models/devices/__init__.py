"""Accelerators: one JSON file each, every number with its source. Adding a device is adding a file.

Peaks are dense: marketing figures "with sparsity" never get in. The file's name is the device's name.
"""

from fxmeter.models.devices.catalog import device, device_names
from fxmeter.models.devices.device import Device

__all__ = ["Device", "device", "device_names"]
