"""The trainer: from events to a release."""
