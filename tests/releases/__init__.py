"""Releases: written whole, verified whole."""
