"""The XML that clients send: which parts make up an object, which keys to delete."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cachestore.testing.r2.request import Refusal, nfc
from cachestore.testing.r2.strict import MAX_DELETE, MAX_PARTS


def malformed() -> Refusal:
    message = (
        "The XML you provided was not well formed or did not validate against our published schema."
    )
    return Refusal(400, "MalformedXML", message)


def parse_parts(document: bytes) -> list[tuple[int, str]]:
    """Numbers and bare ETags of an upload's parts, in order: R2 sorts them."""
    parts: dict[int, str] = {}
    for part in _children(document, "Part"):
        try:
            number = int(part["PartNumber"])
            etag = part["ETag"].strip('"')
        except (KeyError, ValueError):
            raise malformed() from None
        if not 1 <= number <= MAX_PARTS:
            message = "One or more of the specified parts could not be found."
            raise Refusal(400, "InvalidPart", message)
        if number in parts:
            raise Refusal(400, "InvalidPart", "There was a problem with the multipart upload.")
        parts[number] = etag
    if not parts:
        raise malformed()
    return sorted(parts.items())


def parts_request(parts: list[tuple[int, str]]) -> bytes:
    """The document again, in order."""
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
        for number, etag in parts
    )
    return f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()


def delete_request(document: bytes) -> bytes:
    """The document with keys in NFC. Raises 400 for none, or more than a thousand."""
    try:
        keys = [nfc(found["Key"]) for found in _children(document, "Object")]
    except KeyError:
        raise malformed() from None
    if not 0 < len(keys) <= MAX_DELETE:
        raise malformed()
    quiet = "<Quiet>true</Quiet>" if b"<Quiet>true</Quiet>" in document else ""
    rows = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete>{quiet}{rows}</Delete>".encode()


def _children(document: bytes, name: str) -> list[dict[str, str]]:
    """The texts below each element of this name; namespaces do not matter."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        raise malformed() from None
    return [
        {_bare(inner.tag): inner.text or "" for inner in element}
        for element in root
        if _bare(element.tag) == name
    ]


def _bare(tag: str) -> str:
    return tag.rpartition("}")[2]
