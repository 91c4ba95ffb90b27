"""The gRPC edge of the control plane."""
