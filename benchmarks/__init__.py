"""Measurements of the service beside the reference, run by hand."""
