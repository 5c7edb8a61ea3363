"""Rules, their states, and what happens when one fires."""
