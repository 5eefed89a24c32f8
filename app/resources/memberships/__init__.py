"""The memberships of the API."""
