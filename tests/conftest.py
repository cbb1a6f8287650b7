"""What a test draws without saying a seed is drawn from one: what passes once passes every time."""

import random
import sys

import pytest
from hypothesis import HealthCheck, settings

import sonant  # noqa: F401  before torch: see what it says of waiting threads

# The same examples on every machine, and none refused because a busy one was slow to make them.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")


@pytest.fixture(autouse=True, scope="session")
def no_certificates(tmp_path_factory):
    """Nothing here speaks TLS, and httpx would read a whole file of certificates for every request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture(autouse=True, scope="session")
def nowhere(tmp_path_factory):
    """An empty folder to be in: what a relative name stands for must not depend on where the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nowhere"))
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """What other tests drew before this one is no matter, in whatever order they are run."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def same_seeds():
    """Speech without a seed: a small model with random weights may by chance say nothing at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.randbits", random.Random(0).getrandbits)
        yield
