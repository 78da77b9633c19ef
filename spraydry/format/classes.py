"""The class of a file, told from its name: what is compressed together, and which dictionary it may use."""

from __future__ import annotations

TREE = "tree"  # tree pages, manifests and links lists
OTHER = "other"

_ENDINGS = {
    "python": "py pyi pyx pxd",
    "json": "json ipynb geojson map jsonl",
    "markup": "html htm xhtml xml svg md rst tex",
    "script": "js mjs cjs ts tsx jsx css scss less vue",
    "c": "c h cc cpp cxx hpp hh hxx inc cu m rs go java kt cs swift",
    "text": "txt csv tsv log ini cfg conf toml yaml yml po pot sql sh bash pl rb lua php properties in am cmake mk diff"
    " patch",
    "binary": "so o a dll exe pyc pyd wasm mo bin dat db sqlite",
    "packed": "jpg jpeg png gif webp jxl heic avif mp3 ogg opus flac m4a mp4 mkv webm mov gz bz2 xz zst lz4 br zip 7z"
    " rar jar whl deb rpm woff woff2 pdf",
}
_CLASSES = {ending.encode(): name for name, endings in _ENDINGS.items() for ending in endings.split()}
NAMES = (*_ENDINGS, OTHER, TREE)


def class_of(name: bytes) -> str:
    """The class of a file of that name (no directory in it): by its ending, `other` where that says nothing."""
    _, dot, ending = name.rpartition(b".")
    return _CLASSES.get(ending.lower(), OTHER) if dot else OTHER
