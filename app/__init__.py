"""SaaSBase Server: the multi-tenant back end of a SaaS product as one async REST service."""
