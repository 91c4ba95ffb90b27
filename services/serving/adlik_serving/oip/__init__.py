"""The Open Inference Protocol's bodies: tensors in, tensors out, without copying what is raw."""
