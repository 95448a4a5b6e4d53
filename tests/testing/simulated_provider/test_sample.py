from typing import Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from holdfast.testing.simulated_provider.sample import sample, sample_json


class Node(BaseModel):
    name: str
    children: list["Node"]
    parent: Optional["Node"]


class Everything(BaseModel):
    kind: Literal["a", "b"]
    fixed: Literal[7]
    count: int = Field(ge=10, multiple_of=4)
    ratio: float = Field(gt=0, lt=0.9)
    few: list[int] = Field(min_length=3, max_length=4)
    pair: tuple[int, str]
    label: str = Field(min_length=12, max_length=14)
    when: str = Field(json_schema_extra={"format": "date-time"})
    node: Node
    maybe: int | None
    either: str | bool
    flags: dict[str, bool]


def test_a_sample_satisfies_its_schema_recursion_included() -> None:
    Everything.model_validate_json(sample_json(Everything.model_json_schema()))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, "sample"),
        (True, "sample"),
        (None, "sample"),
        ({"type": "object"}, {}),
        ({"type": "object", "properties": {"a": {"type": "null"}, "b": {}}, "required": ["a"]}, {"a": None}),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "integer", "maximum": -5}, -5),
        ({"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6}, 5),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 0}, []),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": False}, [1]),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {"const": 2}}, "required": ["b"]}]},
            {"a": 1, "b": 2},
        ),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"enum": ["x"]}}}, "x"),
        ({"oneOf": [{"type": "boolean"}, {"type": "string"}]}, True),
    ],
)
def test_a_sample_is_the_smallest_value_of_its_schema(schema: Any, value: object) -> None:
    assert sample(schema) == value


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"$ref": "#/nowhere"}, {"allOf": [{"$ref": "#"}]}, {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}]
)
def test_a_reference_that_leads_nowhere_ends(schema: Any) -> None:
    sample(schema)
