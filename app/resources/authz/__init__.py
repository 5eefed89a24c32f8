"""Questions about authorization."""
