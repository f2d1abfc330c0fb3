"""How much a field may hold, by the settings. Knows no field by name."""

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from src.settings import Limits

DEFAULTS = Limits.model_validate({})
_UNITS = {str: " characters", list: "", dict: "", int: ""}
_KEYWORDS = {"string": "maxLength", "array": "maxItems", "object": "maxProperties", "integer": "maximum"}
SETTING = "x-setting"  # in a JSON schema: the setting that a bound comes from


def limits_of(info: ValidationInfo) -> Limits:
    """Those that a body is validated with."""
    limits: Limits = info.context or DEFAULTS
    return limits


class AtMost:
    """Annotates a text, a list, an object or a whole number: its length, or its value, may be what this setting allows; 0 there: any.

    It is looked at before what is in it is, so that a huge list costs nothing.
    """

    def __init__(self, setting: str) -> None:
        assert setting in Limits.model_fields
        self._setting = setting

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        if most := getattr(DEFAULTS, self._setting):
            found = {**found, _KEYWORDS[found["type"]]: most, SETTING: self._setting}
        return found

    def _check(self, value: Any, info: ValidationInfo) -> Any:
        most, unit = getattr(limits_of(info), self._setting), _UNITS.get(type(value))
        if unit is None or not (most or self._zero_forbids):
            return value  # of another type, which is told by what comes after
        if (value if isinstance(value, int) else len(value)) > most:
            raise ValueError(f"{self._setting.upper()} allows {most}{unit}")
        return value

    @property
    def _zero_forbids(self) -> bool:
        """Where 0 is the default it means any."""
        return bool(getattr(DEFAULTS, self._setting))


def with_settings(schema: Any, limits: Limits) -> Any:
    """A JSON schema whose bounds are those of these limits, in place of the defaults."""
    if isinstance(schema, list):
        return [with_settings(item, limits) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: with_settings(value, limits) for key, value in schema.items()}
    if setting := found.pop(SETTING, None):
        found[_KEYWORDS[found["type"]]] = getattr(limits, setting)
    return found
