"""Mail: an outbox that every instance empties, the letters in it, and the way out."""
