"""Methods of the literature that count or solve, with numpy and scipy alone: they run beside a worker too."""
