"""mmrec-stream: the domain and the serving side of a streaming, multimodal, hybrid recommender.

Nothing in this package knows Faust or torch; `streams` and `model_export` build on it.
"""

__version__ = "0.1.0"
