"""Fixtures of the grammar's tests."""

import pytest

from tests import vocabularies


@pytest.fixture(scope="session", params=vocabularies.ALL, ids=lambda make: make.__name__)
def vocabulary(request):
    """Each vocabulary that is there."""
    return request.param()
