"""Values of rows, as data frames and spreadsheets write them."""

from typing import Any


def whole_number(value: Any) -> Any:
    """A number of a column that has gaps, which is a float there, as a whole one; None for no number; others as is."""
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else value
    return value


def optional_value(value: Any) -> Any:
    """As `whole_number`, and None for an empty text."""
    return None if value == "" else whole_number(value)
