"""Signing in with an account elsewhere: Google, GitHub, or any OpenID provider."""
