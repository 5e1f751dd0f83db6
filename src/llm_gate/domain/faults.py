"""Find every fault of a value against a record type, not only the first.

msgspec stops at the first fault; an answer that lists all of them needs this slower walk, on the failure path.
"""

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from llm_gate.domain.errors import Fault


def find_faults(value: object, record: type[Struct], path: str = "") -> list[Fault]:
    """Return every fault of plain data (dicts, lists, scalars) against a record type.

    Paths are written `a.b[0].c`. An empty list means that the value converts.
    """
    return _walk(value, record, path)


def _walk(value: object, annotation: Any, path: str) -> list[Fault]:
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    origin = get_origin(kind)
    if isinstance(kind, type) and issubclass(kind, Struct) and isinstance(value, Mapping):
        return _walk_struct(value, kind, path)
    if origin in {list, tuple} and isinstance(value, list) and _is_uniform(kind):
        item_type = get_args(kind)[0]
        found = [fault for i, item in enumerate(value) for fault in _walk(item, item_type, f"{path}[{i}]")]
        return found or _check(value, annotation, path)
    if origin in {dict, Mapping} and isinstance(value, Mapping):
        value_type = get_args(kind)[1]
        found = [fault for key, item in value.items() for fault in _walk(item, value_type, _join(path, key))]
        return found or _check(value, annotation, path)
    if origin in {Union, types.UnionType}:
        return _walk_union(value, kind, path)
    return _check(value, annotation, path)


def _walk_struct(value: Mapping[Any, Any], record: type[Struct], path: str) -> list[Fault]:
    found: list[Fault] = []
    fields = msgspec.structs.fields(record)
    known = {field.encode_name for field in fields} | {record.__struct_config__.tag_field}
    if record.__struct_config__.forbid_unknown_fields:
        found += [Fault(_join(path, key), "unknown field") for key in value if key not in known]
    for field in fields:
        where = _join(path, field.encode_name)
        if field.encode_name in value:
            found += _walk(value[field.encode_name], field.type, where)
        elif field.required:
            found.append(Fault(where, "required field is missing"))
    return found or _check(value, record, path)


def _walk_union(value: object, union: Any, path: str) -> list[Fault]:
    if _first_fault(value, union) is None:
        return []
    for member in get_args(union):
        bare = get_args(member)[0] if get_origin(member) is Annotated else member
        is_record = isinstance(bare, type) and issubclass(bare, Struct) and isinstance(value, Mapping)
        is_array = get_origin(bare) in {list, tuple} and isinstance(value, list)
        is_mapping = get_origin(bare) in {dict, Mapping} and isinstance(value, Mapping)
        if is_array or is_mapping or (is_record and _is_meant(value, bare)):
            return _walk(value, member, path) or _check(value, union, path)
    return _check(value, union, path)


def _is_meant(value: Any, record: type[Struct]) -> bool:
    """Tell whether a mapping carries the tag of a record; a record without a tag is always meant."""
    settings = record.__struct_config__
    return settings.tag_field is None or value.get(settings.tag_field) == settings.tag


def _is_uniform(kind: Any) -> bool:
    """Tell whether all items of a list or tuple type have one type."""
    arguments = get_args(kind)
    return get_origin(kind) is list or (len(arguments) == 2 and arguments[1] is Ellipsis)  # noqa: PLR2004


def _check(value: object, annotation: Any, path: str) -> list[Fault]:
    message = _first_fault(value, annotation)
    # Raw JSON takes anything; only the converter, which sees plain data here, has no raw form of it.
    if message is None or message.startswith("Expected `raw`"):
        return []
    return [Fault(path, message[:1].lower() + message[1:])]


def _first_fault(value: object, annotation: Any) -> str | None:
    try:
        msgspec.convert(value, annotation, strict=True)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        return str(error).split(" - at `")[0]
    return None


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
