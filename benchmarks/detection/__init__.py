"""Whether alerts can be trusted: planted illnesses and their healthy twins."""
