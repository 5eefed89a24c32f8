"""The edge: everything that knows HTTP and is not a resource."""
