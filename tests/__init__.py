"""The tests, in folders named after what they test; `tests/support` has what several of them share."""

import pytest

pytest.register_assert_rewrite("tests.support")
