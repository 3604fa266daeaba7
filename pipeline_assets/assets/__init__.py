"""Declarative shells: what exists, from what, how often, how it is judged. Computing lives in the pure packages."""
