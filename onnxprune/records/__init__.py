"""Records: the JSON files that a run leaves, each read through one schema.

Imports errors only. `read_record` is the way in; what writes a record stands where it is made.

* `reading`: a file becomes checked JSON, or one line that names file, field and what to do
* `schemas`: what records hold; `shown`: those that a page is made of; `known`: each by its kind
"""

from onnxprune.records.reading import (
    Kind,
    as_text,
    file_digest,
    parse_json,
    parse_record,
    read_bytes,
    read_large,
    read_record,
    read_text,
)

__all__ = [
    "Kind",
    "as_text",
    "file_digest",
    "parse_json",
    "parse_record",
    "read_bytes",
    "read_large",
    "read_record",
    "read_text",
]
