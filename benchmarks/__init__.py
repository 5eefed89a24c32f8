"""Measurements of the service beside the reference and the floor of its stack; see README.md."""
