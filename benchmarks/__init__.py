"""Where the figures of README.md and docs/performance.md come from: ours beside its peers, on one input and broker."""
