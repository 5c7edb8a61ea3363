"""Where time, batch and neurons lie in what a layer makes."""
