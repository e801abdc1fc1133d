"""Limits: how often anything may be tried."""
