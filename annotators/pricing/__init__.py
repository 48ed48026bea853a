"""One recording as a priced graph: every op's cost, fused kernels, lifetimes and peaks."""
