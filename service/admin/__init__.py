"""Administration: who looks after accounts, and what that takes."""
