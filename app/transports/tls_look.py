"""Looking at the certificate that a server shows, to have a person confirm it. Nothing is trusted and nothing is sent.

This is for the first look only: requests go over a link that pins what was confirmed (specs/lem-dcbm.md section 10).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final

from app.errors import LinkError, LinkReason
from app.transports.tls_trust import CIPHERS

CLOSE_S: Final = 0.5


async def shown_certificate(host: str, port: int, timeout_s: float) -> bytes:
    """The certificate of ``host`` as DER; the connection is closed behind the handshake, before any request.

    Raises:
        LinkError: not reached (UNREACHABLE, REFUSED), or TLS is not spoken there (TLS).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # whoever it is: nothing is said to it, and a person judges what it shows
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            _reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=host, ssl_handshake_timeout=timeout_s
            )
    except TimeoutError:
        raise _failed(f"{where} did not agree on TLS within {timeout_s:g} s.", LinkReason.TLS) from None
    except ConnectionRefusedError:
        raise _failed(f"{where} refuses the connection.", LinkReason.REFUSED) from None
    except (ssl.SSLError, ConnectionError) as exc:
        why = getattr(exc, "reason", None) or "it closed the connection"
        raise _failed(f"{where} does not speak TLS ({why}).", LinkReason.TLS) from None
    except (OSError, OverflowError, UnicodeError) as exc:
        why = (getattr(exc, "strerror", None) or str(exc)).rstrip(".")
        raise _failed(f"No connection to {where}: {why}.", LinkReason.UNREACHABLE) from None
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await writer.wait_closed()
        writer.transport.abort()
    if not shown:
        raise _failed(f"{where} agrees on TLS and shows no certificate.", LinkReason.TLS)
    return bytes(shown)


def _failed(text: str, reason: LinkReason) -> LinkError:
    return LinkError(f"{text} Check address and port.", reason, may_have_arrived=False)
