"""Products' pictures: where they may be read from, how they are read, and how small they are kept."""
