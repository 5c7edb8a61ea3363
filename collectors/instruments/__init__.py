"""What reads a spiking layer: an instrument a file, and how they are listed."""
