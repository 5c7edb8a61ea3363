"""What watching costs, spikewatch's and its rivals': `python -m benchmarks.overhead`."""
