"""Many architectures: which ones, what each costs, and who works on them."""
