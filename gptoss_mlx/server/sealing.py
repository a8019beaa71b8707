"""A message as a text that its receiver can give back, and that only this server can have made.

It is what goes into `encrypted_content`: a chain of thought with the ids that were sampled, so that
a client without a stored response costs no new prefill. It is signed, and not encrypted: whoever
holds the text has been given the chain of thought anyway. It does not know who the receiver is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import zlib
from pathlib import Path

from gptoss_mlx.errors import DiskError
from gptoss_mlx.harmony import Message

__all__ = ["Seal", "kept_key", "message_from_json", "message_to_json"]

_SIGNATURE_BYTES = 32
_KEY_BYTES = 32
_FIELDS = ("role", "content", "channel", "recipient", "content_type", "name")


class Seal:
    """Signs with a key; texts outlive a restart where the key does.

    Args:
        key: any bytes that are secret; made anew where there are none.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(_KEY_BYTES)

    def seal(self, message: Message) -> str:
        """The message as a text of URL-safe letters."""
        body = zlib.compress(json.dumps(message_to_json(message)).encode())
        return base64.urlsafe_b64encode(self._signature(body) + body).decode()

    def open(self, text: str) -> Message | None:
        """The message that was sealed; None for any text that this key has not sealed."""
        try:
            data = base64.urlsafe_b64decode(text.encode())
        except (ValueError, binascii.Error):
            return None
        signature, body = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(body)):
            return None
        return message_from_json(json.loads(zlib.decompress(body)))

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)


def kept_key(path: Path) -> bytes:
    """A key in a file of its owner's only; made, where there is none.

    Raises:
        DiskError: the file cannot be used, or holds no key.
    """
    try:
        if not path.exists():
            making = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            making.touch(0o600)
            making.write_bytes(secrets.token_bytes(_KEY_BYTES))
            making.rename(path)  # whole, or not at all
        key = path.read_bytes()
    except OSError as error:
        raise DiskError(f"{path}: cannot keep a key ({error.strerror})") from None
    if len(key) != _KEY_BYTES:
        raise DiskError(f"{path} holds no key: delete it, and a new one is made")
    return key


def message_to_json(message: Message) -> dict[str, object]:
    """A message as a JSON object, without what is None."""
    fields: dict[str, object] = {name: getattr(message, name) for name in _FIELDS}
    fields["ids"] = list(message.ids) if message.ids is not None else None
    return {name: value for name, value in fields.items() if value is not None}


def message_from_json(fields: dict[str, object]) -> Message:
    """The message of a JSON object that `message_to_json` made."""
    ids = fields.get("ids")
    plain = {name: value for name, value in fields.items() if name != "ids"}
    return Message(**plain, ids=tuple(ids) if isinstance(ids, list) else None)  # pyright: ignore
