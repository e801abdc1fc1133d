"""Signals: what says that somebody attacks, or that a client is broken."""
