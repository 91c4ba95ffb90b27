"""How an Adlik service talks to the world: bus, state, artifacts, links, telemetry, errors."""
