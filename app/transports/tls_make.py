"""A self-signed certificate for a listener of this program, and its export for the devices that shall trust it."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.errors import ConfigError

DAYS: Final = 825  # ours: what common clients take at most
EARLIER: Final = timedelta(days=1)  # a device's clock may be behind
MAX_FILE: Final = 64 * 1024
CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCertificate:
    """A certificate without its key. ``fingerprint`` is SHA-256 as AB:CD:...; times are aware UTC."""

    pem: str
    names: tuple[str, ...]
    fingerprint: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCertificate:
    """A new certificate with its private key."""

    certificate: PublicCertificate
    key_pem: str = field(repr=False)


def make_certificate(names: Sequence[str], now: datetime, *, days: int = DAYS) -> MadeCertificate:
    """Make a key and a certificate that says who has it.

    Args:
        names: host names and IP addresses under which devices reach the listener; at least one.
        now: aware; the certificate is valid from a day before.
        days: from ``now``.
    Raises:
        ConfigError: a name is none.
    """
    if not names:
        raise ConfigError("is missing", key="names", expected="a host name or an IP address")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Meterwright bench hub")])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return MadeCertificate(certificate=_public(certificate), key_pem=key_pem.decode("ascii"))


def store(made: MadeCertificate, folder: Path) -> tuple[Path, Path]:
    """Write certificate and key into ``folder``; the key is for this user only.

    Returns:
        Paths of certificate and key, as ``server_context`` wants them.
    Raises:
        ConfigError: they cannot be written.
    """
    certificate, key = folder / CERTIFICATE_FILE, folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(key, made.key_pem, 0o600)
        _write(certificate, made.certificate.pem, 0o644)
    except OSError as exc:
        raise _not_written(folder, exc) from exc
    return certificate, key


def read_certificate(path: Path) -> PublicCertificate:
    """Read a certificate file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", file=str(path), expected="a certificate as PEM") from exc
    if len(data) > MAX_FILE:
        raise ConfigError("is too large", file=str(path), expected="one certificate as PEM below 64 KiB")
    try:
        return _public(x509.load_pem_x509_certificate(data))
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as exc:
        raise ConfigError("is no certificate", file=str(path), expected="one certificate as PEM") from exc


def export_certificate(certificate: Path, target: Path) -> PublicCertificate:
    """Write the certificate, never the key, where a device can take it from.

    Raises:
        ConfigError: it cannot be read or written.
    """
    found = read_certificate(certificate)
    try:
        _write(target, found.pem, 0o644)
    except OSError as exc:
        raise _not_written(target, exc) from exc
    return found


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The TLS context of a listener.

    Raises:
        ConfigError: a file cannot be read, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as exc:
        why = "does not belong to its key" if "MISMATCH" in str(exc.reason) else "cannot be used with its key"
        raise ConfigError(why, file=str(certificate), expected=f"a certificate, and its key in {key}") from exc
    except (OSError, ValueError) as exc:
        where = str(getattr(exc, "filename", None) or f"{certificate} or {key}")
        why = getattr(exc, "strerror", None) or str(exc)
        raise ConfigError(f"cannot be read: {why}", file=where, expected="a PEM file") from exc
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL asks on the terminal


def _general_name(name: str) -> x509.GeneralName:
    text = name.strip()
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    try:
        host = text.rstrip(".").encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{text[:60]!r} is neither", key="names", expected="a host name or an IP address")
    return x509.DNSName(host)


def _public(certificate: x509.Certificate) -> PublicCertificate:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(item.value) for item in found if isinstance(item, (x509.DNSName, x509.IPAddress)))
    except x509.ExtensionNotFound:
        names = ()
    return PublicCertificate(
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        names=names,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _write(path: Path, text: str, mode: int) -> None:
    """Replace ``path`` as a whole; it never has more rights than ``mode``, not even for a moment."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _not_written(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(f"cannot be written: {exc.strerror}", file=str(path), expected="a place that can be written")
