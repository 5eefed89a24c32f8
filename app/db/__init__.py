"""The database: engines, declarative base, the tenant fence, migrations."""
