"""The commands of `spikewatch`, one file each: its arguments, and what it does."""
