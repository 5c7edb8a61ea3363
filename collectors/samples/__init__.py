"""Where a sample begins, and whether one goes on."""
