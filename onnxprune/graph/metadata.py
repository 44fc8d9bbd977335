"""Metadata of a model: texts by key."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto


def read_metadata(model: ModelProto) -> dict[str, str]:
    """Return what the metadata of a model says, by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def write_metadata(model: ModelProto, said: Mapping[str, str]) -> None:
    """Write keys into the metadata of a model; an empty text takes a key away.

    >>> model = ModelProto()
    >>> write_metadata(model, {"author": "me", "names": "a,b"})
    >>> write_metadata(model, {"author": ""})
    >>> read_metadata(model)
    {'names': 'a,b'}
    """
    kept = [(key, text) for key, text in read_metadata(model).items() if key not in said]
    del model.metadata_props[:]
    for key, text in (*kept, *said.items()):
        if text:
            model.metadata_props.add(key=key, value=text)
