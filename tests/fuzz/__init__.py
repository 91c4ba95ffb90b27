"""Random graphs in plans against ONNX Runtime: `make fuzz`; see `__main__.py`."""
