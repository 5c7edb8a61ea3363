"""One file for each trainer. It imports the trainer's library, and only who uses that imports it."""
