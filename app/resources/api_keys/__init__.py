"""The api keys of the API."""
