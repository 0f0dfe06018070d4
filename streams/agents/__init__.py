"""The agents: one a kind of behaviour topic. All of them hand their chunks to the pipeline."""
