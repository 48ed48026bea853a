"""Closed forms: what to do with exact polynomials once they are found: evaluate, sum, write down."""
