"""The HTTP edge: who is asking, from where, and how answers look."""
