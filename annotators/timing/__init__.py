"""How long a priced pass takes on a device: kernels, their roofs, and what they really reach."""
