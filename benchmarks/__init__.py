"""Benchmarks: each one command, each prints a table and ends with one line of verdict."""
