"""From scores to a list: what rules allow, weigh and fix, and how a list is chosen by them."""
