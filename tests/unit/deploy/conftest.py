"""Each kustomization, rendered once."""

import pytest

from tests.unit.deploy.rendering import RENDERINGS, rendered


@pytest.fixture(params=RENDERINGS)
def rendering(request):
    return rendered(request.param)
