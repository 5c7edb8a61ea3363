"""All that touches a torch module or a trainer. Installed as `spikewatch.collectors`."""
