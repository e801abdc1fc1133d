"""Recovery: proving an email, getting back in without a password, and moving to another address."""
