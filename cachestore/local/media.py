"""Content types from names: our own table of media types, then the standard library's."""

from __future__ import annotations

import mimetypes

DEFAULT = "application/octet-stream"

# What browsers and media apps expect; the standard table differs between machines.
_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "mid": "audio/midi",
    "midi": "audio/midi",
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "ts": "video/mp2t",
    "m3u8": "application/vnd.apple.mpegurl",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "heic": "image/heic",
    "heif": "image/heif",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "svg": "image/svg+xml",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "csv": "text/csv",
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "vtt": "text/vtt",
    "pdf": "application/pdf",
    "zip": "application/zip",
    "parquet": "application/vnd.apache.parquet",
    "npy": DEFAULT,
    "npz": "application/zip",
    "pt": DEFAULT,
    "safetensors": DEFAULT,
}


def guess_type(key: str) -> str:
    """The content type that a key's extension stands for."""
    _, dot, extension = key.rsplit("/", 1)[-1].rpartition(".")
    if not dot:
        return DEFAULT
    known = _TYPES.get(extension.lower())
    if known is not None:
        return known
    guessed, encoding = mimetypes.guess_type("x." + extension, strict=False)
    return DEFAULT if guessed is None or encoding is not None else guessed
