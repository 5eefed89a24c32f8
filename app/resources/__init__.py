"""The nouns of the API; strangers to one another."""
