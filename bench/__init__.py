"""Measurements: what the product costs, each beside a bare version of the same work on the same machine.

Run one with `python -m bench.<name>`. It starts a Redis of its own, and removes what it has made.
"""
