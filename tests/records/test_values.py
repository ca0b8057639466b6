import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from records.values import to_scalar, to_text


@pytest.mark.parametrize(
    ("value", "scalar"),
    [
        (None, None),
        ("  text ", "  text "),
        (True, True),
        (2**63, 2**63),
        (0.1, 0.1),
        (math.inf, None),
        (math.nan, None),
        (Decimal("1.10"), "1.10"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00+00:00"),
        (time(12, 30), "12:30:00"),
        (timedelta(hours=1), "1:00:00"),
        (b"\x00\xff", "00ff"),
        (memoryview(b"\x01"), "01"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (["书", 1], '["书", 1]'),
        ({"a": date(2024, 2, 29)}, '{"a": "2024-02-29"}'),
    ],
)
def test_every_column_value_becomes_one_that_json_can_say(value, scalar):
    assert to_scalar(value) == scalar
    assert type(to_scalar(value)) is type(scalar)
    json.dumps(to_scalar(value), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"), [("Optics", "Optics"), ("", ""), (None, ""), (7, "7"), (0.5, "0.5"), (True, "true")]
)
def test_numbers_and_truth_values_are_offered_as_their_json_text(value, text):
    assert to_text(value) == text
