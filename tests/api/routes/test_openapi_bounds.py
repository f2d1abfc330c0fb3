"""What is sent by /openapi.json is answered as it says, at every bound of every field. Collected for the slow tests alone."""

import pytest

from tests.support.documented import check, documented, few, fuzzed_service


@pytest.fixture(scope="module")
def fuzzed():
    with fuzzed_service() as server:
        yield server


@pytest.mark.slow
@documented(thorough=True).parametrize()
@few
def test_every_route_does_so_at_every_bound_of_every_field(case, fuzzed):
    check(case)
