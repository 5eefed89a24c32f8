"""The executions of the API."""
