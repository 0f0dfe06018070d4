"""How good a model is: metrics, methods of the literature, prequential replay and reports."""
