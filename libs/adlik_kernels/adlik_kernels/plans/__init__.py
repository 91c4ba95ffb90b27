"""Whole models: from ONNX to fused operators, one arena and one call."""
