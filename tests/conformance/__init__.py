"""Whole classes of graphs against ONNX Runtime: ONNX's node tests, and random ones."""
