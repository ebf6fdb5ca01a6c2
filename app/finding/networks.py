"""The LEM DCBM on the network: an address, or a small private network where a person asks for it.

Each address is asked for its status over http; where it speaks TLS its certificate is looked at, and asked again with
that certificate pinned. The fingerprint goes to a person, who compares it before the meter is saved
(specs/lem-dcbm.md sections 1 and 10).
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from typing import Any, Final

from app.errors import LinkError, LinkReason, ParameterError, WorkbenchError
from app.finding.search import Feed, Finder, Outcome, Plan, Record, outcome_of
from app.ports import AdapterType, Clock, Secrets
from app.protocols import lem_dcbm as lem
from app.transports.http_link import HttpLink
from app.transports.tls_look import shown_certificate
from app.transports.tls_trust import PinnedTls

LEM: Final = "lem-dcbm"
PORT: Final = 80  # section 1: with TLS too
FACTORY: Final = "192.168.1.2"
LARGEST: Final = 256  # addresses of a network that is searched
AT_ONCE: Final = 16
ONE_S: Final = 5.0  # section 1: a whole request, where one address is asked
MANY_S: Final = 2.0  # and where many are
_MOVES_TO_TLS: Final = frozenset({LinkReason.CLOSED, LinkReason.BROKEN, LinkReason.SILENT})


class LemSearch(Finder):
    """Looks for LEM meters.

    Args:
        where: an address or name, or a private network of at most 256 addresses such as 192.168.1.0/24.
    Raises:
        ParameterError: it is neither.
    """

    def __init__(
        self,
        where: str,
        port: int = PORT,
        *,
        types: Mapping[str, AdapterType],
        clock: Clock,
        secrets: Secrets | None = None,
    ) -> None:
        super().__init__(types=types, clock=clock, secrets=secrets)
        self._where = where.strip()
        self._port = port
        self._hosts = hosts_of(self._where)
        self._limit_s = ONE_S if len(self._hosts) == 1 else MANY_S
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @property
    def plan(self) -> Plan:
        """Each address takes up to three exchanges: http, the certificate, https."""
        count = len(self._hosts)
        rounds = -(-count // AT_ONCE)
        longest = rounds * (3 * self._limit_s + 1.0)
        what = f"{count} addresses of {self._where}" if count > 1 else self._where
        text = (
            f"{what} at port {self._port}: status by http, else by https with the certificate that is shown. "
            f"At most {longest:.0f} s. Only reads are sent."
        )
        return Plan(text=text, tries=3 * count, longest_s=longest)

    async def _search(self, feed: Feed) -> str:
        self._type(LEM)
        async with asyncio.TaskGroup() as group:
            for host in self._hosts:
                group.create_task(self._look_at(feed, host), name=f"look at {host}")
        if feed.found:
            return f"{feed.found} of {len(self._hosts)} addresses answered as a LEM DCBM."
        return (
            f"No LEM DCBM answers at {self._where}, port {self._port}. Check cable, power and address: a meter comes "
            f"from the factory with {FACTORY}, and this computer needs an address of the same network."
        )

    async def _look_at(self, feed: Feed, host: str) -> None:
        async with self._at_once:
            try:
                if await self._status(feed, host, None):
                    return
                certificate = await self._certificate(feed, host)
                if certificate is not None:
                    await self._status(feed, host, certificate)
            except WorkbenchError as exc:
                feed.tell_try(host, f"port {self._port}", str(exc), outcome_of(exc))

    async def _status(self, feed: Feed, host: str, certificate: lem.Certificate | None) -> bool:
        """Ask for the status. False: TLS is worth a look. Raises ConfigError: the address is none."""
        scheme = "http" if certificate is None else "https"
        pin = None if certificate is None else PinnedTls.from_der(certificate.der)
        record = Record()
        link = HttpLink(host, self._port, tls=pin, timeout_s=self._limit_s, tap=record, max_body=lem.MAX_BODY_BYTES)
        request = lem.get_status()
        what = f"{scheme} GET {request.target}"
        try:
            reply = await link.request(request.method, request.target, max_body=request.max_bytes)
            status = lem.judge_status(request, reply.status, reply.body)
        except WorkbenchError as exc:
            outcome = Outcome.FAILED if record.got else outcome_of(exc)
            feed.tell_try(host, what, str(exc), outcome, sent=bytes(record.sent), got=bytes(record.got))
            may_be_tls = isinstance(exc, LinkError) and exc.reason in _MOVES_TO_TLS
            return not (certificate is None and may_be_tls and not record.got)
        finally:
            await link.close()
        text = f"Meter {status.meter_id} answers by {scheme}, firmware {status.firmware}."
        feed.tell_try(host, what, text, Outcome.ANSWERED, sent=bytes(record.sent), got=bytes(record.got))
        settings: dict[str, Any] = {"host": host, "port": self._port}
        if certificate is not None:
            settings["tls_certificate"] = certificate.pem
            text = (
                f"{text} Its certificate ({certificate.subject}, {certificate.key_type} {certificate.key_bits} bit) "
                f"has the fingerprint {certificate.sha256}: compare it with the meter's papers before you save."
            )
            text = " ".join((text, *certificate.warnings(self._clock.now())))
        feed.tell_candidate(
            title=f"LEM {status.meter_id}", adapter=LEM, settings=settings, text=text, serial=status.meter_id,
            identity=status.meter_id, fingerprint="" if certificate is None else certificate.sha256,
        )  # fmt: skip
        return True

    async def _certificate(self, feed: Feed, host: str) -> lem.Certificate | None:
        what = "TLS handshake, nothing sent behind it"
        try:
            der = await shown_certificate(host, self._port, self._limit_s)
            found = lem.read_certificate(ssl.DER_cert_to_PEM_cert(der))
        except WorkbenchError as exc:
            feed.tell_try(host, what, str(exc), outcome_of(exc))
            return None
        text = f"A certificate is shown: {found.subject}, fingerprint {found.sha256}."
        feed.tell_try(host, what, text, Outcome.ANSWERED, got=der)
        return found


def hosts_of(where: str) -> tuple[str, ...]:
    """The addresses that ``where`` names. Raises ParameterError."""
    if "/" not in where:
        if not where or any(character.isspace() for character in where):
            raise ParameterError(f"{where[:60]!r} is no address. Enter one such as {FACTORY}.", "host")
        return (where,)
    try:
        network = ipaddress.ip_network(where, strict=False)
    except ValueError:
        raise ParameterError(f"{where[:60]!r} is no network. Enter one such as 192.168.1.0/24.", "host") from None
    if network.num_addresses > LARGEST or not network.is_private:
        raise ParameterError(
            f"{network} is not searched: only private networks of at most {LARGEST} addresses are, such as "
            "192.168.1.0/24.", "host",
        )  # fmt: skip
    return tuple(str(host) for host in network.hosts())
