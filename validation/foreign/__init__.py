"""Code from elsewhere: models of other packages, and modules in the style of well-known repositories."""
