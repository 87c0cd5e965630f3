"""Units of the fields of responses. Money is scaled by 10^8, rates are parts per million, times UTC milliseconds.

With `as=decimal` the fields with `x-scale` 100000000 are decimal texts.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from candlemill.formatting import Unit
from candlemill.units import SCALE


def _meta(unit: str, scale: int, text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra_json_schema={"x-unit": unit, "x-scale": scale})


Money = Annotated[int, _meta(Unit.MONEY, SCALE, "money, times 10^8")]
Price = Annotated[int, _meta("price", SCALE, "price, times 10^8")]
Quantity = Annotated[int, _meta("quantity", SCALE, "units of base, times 10^8")]
Volume = Annotated[int, _meta("volume", SCALE, "units of base, times `volume_scale`")]
Share = Annotated[int, _meta(Unit.SHARE, SCALE, "share, times 10^8: 100000000 is 100 %")]
Ratio = Annotated[int, _meta(Unit.RATIO, SCALE, "ratio, times 10^8")]
Moment = Annotated[int, _meta("ms", 1, "UTC ms since 1970")]


def units_of(struct: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """Return the unit, scale and description of each annotated field of a struct, as keys of its JSON schema."""
    _, components = msgspec.json.schema_components([struct])
    properties = components.get(struct.__name__, {}).get("properties", {})
    found = {name: next(iter(_marked(schema)), {}) for name, schema in properties.items()}
    return {name: marks for name, marks in found.items() if marks}


def _marked(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "x-unit" in schema:
        yield {name: schema[name] for name in ("x-unit", "x-scale", "description")}
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if isinstance(schema.get("items"), dict) else ())):
        yield from _marked(inner)
