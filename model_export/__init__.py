"""The offline trainer: from events and a catalogue to a verified release. Needs PyTorch (the `train` extra)."""
