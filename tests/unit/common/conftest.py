"""The link is tested on both event loops: uvloop's transports are no asyncio.Transport."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories(item):
    loops = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_link.py":
        loops["uvloop"] = uvloop.new_event_loop
    return loops
