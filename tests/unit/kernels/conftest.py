"""A cache of compiled kernels for the session, so that no test sees an older one."""

import pytest
from adlik_kernels import configure


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    configure(cache=tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def level(request):
    """Masks the machine for one test; parametrize it indirectly."""
    configure(level=request.param)
    yield request.param
    configure(level="")
