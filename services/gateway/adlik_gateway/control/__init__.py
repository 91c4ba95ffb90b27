"""What users ask of the gateway, once for all transports."""
