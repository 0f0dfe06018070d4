"""What the demo runs beside its gateway, and what a visitor of its shop may do to it."""
