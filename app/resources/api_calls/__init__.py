"""The api calls of the API."""
