"""Long random histories on real stores, checked against the model."""

import pytest

pytest.register_assert_rewrite("tests.stateful.histories")
