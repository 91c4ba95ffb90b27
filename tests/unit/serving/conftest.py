"""Lets the tests of this folder import their shared module by name."""

import sys
from pathlib import Path

import pytest
from adlik_common.link import LinkClient

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def replica(tmp_path):
    address = f"unix://{tmp_path}/l.sock"
    from doubling import Doubler
    from replicas import Replica

    replica = Replica(Doubler(), LinkClient(address))
    await replica.server.start(address)
    yield replica
    replica.model.go.set()
    await replica.client.close()
    await replica.server.stop(1)
    for variant in replica.loaded.values():
        await variant.retire()
