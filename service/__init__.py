"""Gatepost: sign-in, sessions and tokens for single-page apps, with Redis as the only state."""

__version__ = "0.1.0"
