"""Ranking on ONNX Runtime: from a batch of users' features to their lists."""
