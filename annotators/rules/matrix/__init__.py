"""Matrix products, convolutions, factorisations, and attention cores."""
