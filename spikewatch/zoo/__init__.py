"""Small, right implementations of the systems that spikewatch watches."""
