"""One file for each trainer; it imports the library of it, and spikewatch never imports the file."""
