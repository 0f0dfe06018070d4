"""What operators do and look at: audit, health, dead letters, repartitioning, where records lie, and names."""
