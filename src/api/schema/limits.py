"""How much a field may hold, by the settings."""

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from src.errors import InvalidValue, ServiceError
from src.settings import Limits

DEFAULTS = Limits.model_validate({})
_REASONS = {
    str: "is too long: {setting} allows {most} characters",
    list: "has too many items: {setting} allows {most}",
    dict: "has too many entries: {setting} allows {most}",
    int: "is too large: {setting} allows {most}",
}
_KEYWORDS = {"string": "maxLength", "array": "maxItems", "object": "maxProperties", "integer": "maximum"}
SETTING = "x-setting"  # in a JSON schema: the setting that a bound comes from


def limits_of(info: ValidationInfo) -> Limits:
    """Those that a body is validated with."""
    limits: Limits = info.context or DEFAULTS
    return limits


class AtMost:
    """Annotates a string, an array, an object or an integer: its length, or its value, is at most this, or what this setting allows.

    Checked before the content, so that a huge array costs nothing; and the first wrong item ends the search for others, each of which
    would be an object. Where the setting's default is 0, 0 means unlimited.
    """

    def __init__(self, most: str | int, kind: type[ServiceError] = InvalidValue) -> None:
        """`most`: a setting's name, or a number. `kind`: the error of what is more; fields.py has to know it."""
        assert isinstance(most, int) or most in Limits.model_fields
        self._most, self._kind = most, kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)
        if schema["type"] == "list" or schema["type"] == "dict":
            schema["fail_fast"] = True
        return core_schema.with_info_before_validator_function(self._check, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler(schema)
        if most := self._of(DEFAULTS):
            described = {**described, _KEYWORDS[described["type"]]: most}
            described |= {SETTING: self._most} if isinstance(self._most, str) else {}
        return described

    def _check(self, value: Any, info: ValidationInfo) -> Any:
        most, reason = self._of(limits_of(info)), _REASONS.get(type(value))
        if reason is None or not (most or self._zero_forbids):
            return value  # of another type, which the next validator refuses
        if (value if isinstance(value, int) else len(value)) > most:
            told = reason.format(setting=self._most.upper() if isinstance(self._most, str) else "this server", most=most)
            raise PydanticCustomError(str(self._kind.code), "{reason}", {"reason": told})
        return value

    @property
    def _zero_forbids(self) -> bool:
        """Where 0 is the default it means unlimited."""
        return bool(self._of(DEFAULTS))

    def _of(self, limits: Limits) -> int:
        most: int = self._most if isinstance(self._most, int) else getattr(limits, self._most)
        return most


def with_settings(schema: Any, limits: Limits) -> Any:
    """The JSON schema with the bounds of these limits in place of the defaults."""
    if isinstance(schema, list):
        return [with_settings(item, limits) for item in schema]
    if not isinstance(schema, dict):
        return schema
    described = {key: with_settings(value, limits) for key, value in schema.items()}
    if setting := described.pop(SETTING, None):
        described[_KEYWORDS[described["type"]]] = getattr(limits, setting)
    return described
