"""A run told without a browser or a server: on the terminal, and as one file."""
