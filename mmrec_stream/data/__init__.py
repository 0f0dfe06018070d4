"""Events as data sets: sources, splits, requests and item-item counting, for the trainer and the judges alike."""
