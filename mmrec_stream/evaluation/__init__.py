"""How good a model is: data sets, splits, metrics, prequential replay and reports."""
