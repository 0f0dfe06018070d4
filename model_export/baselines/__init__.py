"""Named methods of the literature under one interface, to judge the hybrid model against."""
