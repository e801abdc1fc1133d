"""Audit: what happened, told once."""
