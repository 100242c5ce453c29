"""Benchmarks: ratios against the file system's own cost and against peers, in one run."""
