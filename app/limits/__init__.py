"""How many requests a caller may send: token buckets in this process, or shared through the database."""
