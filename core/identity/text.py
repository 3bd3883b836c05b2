"""Bytes as text: standard base64 with padding (RFC 4648, section 4), in one spelling.

Many texts decode to the same bytes for a lenient reader: unused bits set, padding left out, line breaks.
What is signed or compared must have one form, so whatever does not re-encode to itself is refused.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from typing import Final

from fedhouse.errors import IntegrityError

# Keys, signatures and proofs are far shorter; who expects more says so.
MAX_TEXT: Final = 2**20


def b64(data: bytes) -> str:
    """`data` as base64."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: object, what: str, *, longest: int = MAX_TEXT) -> bytes:
    """The bytes in a base64 text of at most `longest` characters; `what` names it in the message.

    Raises
    ------
    IntegrityError
        If `text` is no text, too long, or not what `b64` gives. The message does not repeat it.
    """
    if not isinstance(text, str) or len(text) > longest:
        raise IntegrityError(
            f"{what} is no base64 text of at most {longest} characters.", mend="Send it again, unchanged."
        )
    data = None
    # The errors are let go: they carry the text, and it may be a secret.
    with contextlib.suppress(UnicodeEncodeError, binascii.Error):
        data = base64.b64decode(text.encode("ascii"), validate=True)
    if data is None or b64(data) != text:
        raise IntegrityError(
            f"{what} is not base64 in its one spelling (RFC 4648, padded).", mend="Send it again, unchanged."
        )
    return data
