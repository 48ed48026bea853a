"""One pass beside another: ranks and one device, serving kernels and transformers', trace and hand-written layers."""
