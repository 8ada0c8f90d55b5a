"""Measures causality-sdk beside its targets and its peers: `python -m benchmarks --help`."""
