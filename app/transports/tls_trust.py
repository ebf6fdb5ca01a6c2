"""Whom this program trusts over TLS: the usual roots, certificates that were entered, or exactly one that is pinned.

A pin is compared byte by byte before the first octet of a request leaves (specs/lem-dcbm.md section 10).
"""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from app.errors import ConfigError

NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: expiry is a warning, not fatal (section 10)
CIPHERS: Final = "DEFAULT:@SECLEVEL=1"  # level 2 refuses the meters' 1024-bit keys; 0 is not needed (section 10)
MAX_CERTIFICATE: Final = 64 * 1024


def client_context(ca_pem: str = "") -> ssl.SSLContext:
    """A verifying TLS context; with ``ca_pem`` only those certificates are trusted.

    Raises:
        ConfigError: they cannot be read.
    """
    if not ca_pem.strip():
        return httpx.create_ssl_context(trust_env=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError("cannot be read", key="ca_certificate", expected="certificates as PEM") from exc
    return context


# ---------------------------------------------------------------- one pinned certificate


class _PinnedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _compare(self)


class _PinnedObject(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _compare(self)


class PinnedContext(ssl.SSLContext):
    """A client context that accepts exactly one certificate."""

    sslsocket_class = _PinnedSocket
    sslobject_class = _PinnedObject
    pin: bytes = b""


def _compare(peer: ssl.SSLSocket | ssl.SSLObject) -> None:
    context = peer.context
    pin = context.pin if isinstance(context, PinnedContext) else b""
    shown = peer.getpeercert(binary_form=True) or b""
    if not pin or shown != pin:
        raise ssl.SSLCertVerificationError(1, "[PIN_MISMATCH] the certificate shown is not the pinned one")


def pinned_context(der: bytes) -> PinnedContext:
    """The context of specs/lem-dcbm.md section 10: trusts ``der``, and of what it could sign only itself.

    Raises:
        ConfigError: ``der`` is not one certificate that OpenSSL takes.
    """
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context would add VERIFY_X509_STRICT on 3.13+
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.pin = der
    context.verify_flags |= NO_CHECK_TIME
    try:
        context.load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(
            f"is not a certificate that can be used: {exc}", key="tls_certificate", expected="one X.509 certificate"
        ) from exc
    return context


@dataclass(frozen=True, slots=True)
class PinnedTls:
    """The one certificate to trust, as DER bytes."""

    der: bytes
    not_before: datetime
    not_after: datetime

    @classmethod
    def from_der(cls, der: bytes) -> PinnedTls:
        """Read one certificate.

        Raises:
            ConfigError: it cannot be read.
        """
        if len(der) > MAX_CERTIFICATE:
            raise ConfigError("is too large", key="tls_certificate", expected="one certificate below 64 KiB")
        try:
            with warnings.catch_warnings():  # meters hold odd certificates: that is not this program's warning
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                certificate = x509.load_der_x509_certificate(der)
                return cls(der, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        except (ValueError, TypeError) as exc:
            raise ConfigError(f"cannot be read: {exc}", key="tls_certificate", expected="one certificate") from exc

    def context(self) -> PinnedContext:
        return pinned_context(self.der)

    def warning(self, now: datetime) -> str:
        """A sentence when the certificate is outside its validity, else "" (section 10: a warning, never fatal)."""
        if now > self.not_after:
            return (
                f"The pinned TLS certificate expired on {self.not_after:%Y-%m-%d}. The connection works and is still "
                "compared with the pin; plan to replace the certificate in the meter."
            )
        if now < self.not_before:
            return (
                f"The pinned TLS certificate is valid only from {self.not_before:%Y-%m-%d} on. Check this computer's "
                "clock and the meter's."
            )
        return ""
