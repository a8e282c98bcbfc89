"""``Content-Type`` by a file's name.

Decided here: that nothing in a store is ever HTML to a browser: a page among the side files would run as if volfs had
written it. What else may hold scripts (SVG, XML) is shown in a sandbox: :data:`SANDBOX` goes with every file.
"""

from __future__ import annotations

BYTES = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"

#: Headers of a file of the tree: no script of it runs, and no browser guesses what else it may be.
SANDBOX = [
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"),
    ("x-content-type-options", "nosniff"),
]

_BY_ENDING = {
    "json": JSON,
    "ipynb": JSON,
    "geojson": "application/geo+json",
    **dict.fromkeys(
        ("txt", "md", "log", "htm", "html", "xhtml", "shtml", "js", "mjs", "py", "ijm", "yaml", "yml"), TEXT
    ),
    "csv": "text/csv; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "xml": "application/xml",
    "dzi": "application/xml",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "pdf": "application/pdf",
    "zip": "application/zip",
    "gz": "application/gzip",
}
_BY_NAME = {"info": JSON, ".zarray": JSON, ".zattrs": JSON, ".zgroup": JSON, ".zmetadata": JSON, "metrics": TEXT}


def media_type(name: bytes) -> str:
    """The media type of a file."""
    text = name.decode("utf-8", "replace").lower()
    return _BY_NAME.get(text) or _BY_ENDING.get(text.rpartition(".")[2] if "." in text else "", BYTES)
