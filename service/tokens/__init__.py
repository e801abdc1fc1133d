"""Access tokens: made, checked, and published keys to check them with."""
