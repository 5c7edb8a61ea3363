"""One file for each trainer: it imports the trainer's library, and nothing of ours imports it."""
