"""Bytes that are no text: carried through parsing as private characters, so that they cost a row and not the file."""

import codecs
import io
import re
from typing import Any

_BASE = 0x10FE00
"""Byte b becomes the character _BASE + b, out of the last private-use plane. Only files with such bytes are looked
through for these characters."""

_KEPT = re.compile(f"[{chr(_BASE)}-{chr(_BASE + 0xFF)}]")

_ERRORS = "mmrec-keep"


def is_undecodable(text: str) -> bool:
    """Whether the text holds bytes that could not be decoded."""
    return _KEPT.search(text) is not None


def shown(text: str) -> str:
    r"""The text with such bytes as `\xNN`."""
    return _KEPT.sub(lambda match: f"\\x{ord(match[0]) - _BASE:02x}", text)


class Utf8Stream(io.RawIOBase):
    """A stream of text in any encoding, read as valid UTF-8."""

    def __init__(self, stream: Any, encoding: str) -> None:
        """Read from `stream`, which has `read(n)`."""
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._ended = False
        self.suspect = False
        """Whether some bytes could not be decoded."""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; less only at the end."""
        while not self._ended and len(self._ready) < len(buffer):
            raw = self._stream.read(len(buffer))
            self._ended = not raw
            self._ready += self._decode(raw).encode()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decode(self, raw: bytes) -> str:
        before = self._decoder.getstate()
        try:
            return self._decoder.decode(raw, self._ended)
        except UnicodeDecodeError:
            self.suspect = True
            self._decoder.errors = _ERRORS
            self._decoder.setstate(before)
            return self._decoder.decode(raw, self._ended)


def _keep(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_BASE + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _keep)
