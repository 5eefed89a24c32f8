"""The groups of the API."""
