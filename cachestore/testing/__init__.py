"""Fakes, faults, contract suites and an R2 double, for tests of this library and of apps."""
