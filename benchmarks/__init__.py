"""Benchmarks: what the pipeline costs, beside the naive way, on this machine. See benchmarks/README.md."""
