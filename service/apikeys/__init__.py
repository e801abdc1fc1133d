"""API keys, with which other services call in a person's name and with part of their rights."""
