"""A columnar copy of a store, kept in step with it."""
