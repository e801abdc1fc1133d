"""Sessions: one per sign-in, renewed by rotating refresh tokens, ended at once everywhere."""
