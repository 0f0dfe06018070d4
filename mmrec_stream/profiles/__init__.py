"""A user's rolling profile: a fixed-width record, the fold that updates it, and the rows that hold many of them."""
