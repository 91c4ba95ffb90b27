"""The Adlik client: push a trained model, watch it get faster, run it.

client = adlik.Client()
client.push("resnet50", "resnet50.onnx")
outputs = client.infer("resnet50", {"input": picture})
"""

from adlik.client import Client
from adlik.errors import AdlikError, ConnectionFailed

__all__ = ["AdlikError", "Client", "ConnectionFailed"]
