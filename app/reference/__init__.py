"""Coming from SaaSBase 0.1.1, here called the reference: reads its database and its documents into ours."""
