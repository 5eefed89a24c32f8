"""The projects of the API."""
