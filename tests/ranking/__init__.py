"""Ranking: the scorer and what it stands on."""
