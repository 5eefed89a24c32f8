"""The audit events of the API."""
