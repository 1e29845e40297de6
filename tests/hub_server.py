"""A loopback server that speaks so much of AMQP 1.0 as azure-eventhub asks of Event Hubs.

Frames are written with the library's own codec, because the library reads their fields by position:
a server that leaves out trailing nulls, as AMQP lets it, is not understood.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from azure.eventhub._pyamqp import (
    _decode,
    _encode,
    endpoints,
    error,
    message,
    outcomes,
    performatives,
)

from lakehouse.settings import Broker

# The library's own modules, whose types are not made for a server.
frames: Any = performatives
decode_frame: Any = _decode.decode_frame
decode_payload: Any = _decode.decode_payload
encode_frame: Any = _encode.encode_frame
encode_payload: Any = _encode.encode_payload
Source: Any = endpoints.Source
Target: Any = endpoints.Target
AMQPError: Any = error.AMQPError
Message: Any = message.Message
Properties: Any = message.Properties
Accepted: Any = outcomes.Accepted
Rejected: Any = outcomes.Rejected

BATCH = 0x80013700
SASL, AMQP = b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00"
OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
WINDOW = 2**31 - 1
FRAME_BYTES = 65_536
KEY = b"x-opt-partition-key"


@dataclass
class Sending:
    """A transfer that came: when, of which key, its events, and whether it was taken."""

    at: float
    key: str | None
    events: int
    bytes: int
    taken: bool


@dataclass
class Hub:
    """Its partitions, each a list of encoded events, and every sending that there was."""

    partitions: list[list[tuple[str | None, bytes]]]
    sendings: list[Sending] = field(default_factory=list)


class HubServer:
    """hubs by name. largest: bytes of a transfer. busy: how many of the next transfers are answered
    as too many. refuses: what is said to every token. secret: of the policy, made for these tests.
    tokens: every token that was put. certificate: a file (PEM) for TLS; without it there is none.
    """

    def __init__(self, certificate: Path | None = None, **hubs: int) -> None:
        self.hubs = {name: Hub([[] for _ in range(count)]) for name, count in hubs.items()}
        self.largest, self.busy, self.refuses = 262_144, 0, ""
        self.lock = threading.Lock()
        self.secret, self.tokens = uuid.uuid4().hex, list[str]()
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError, EOFError):
                    _Connection(server, self.request).run()

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._listener = Listener(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._listener.socket = context.wrap_socket(self._listener.socket, server_side=True)
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()

    @property
    def connection_string(self) -> str:
        return (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName=tests;"
            f"SharedAccessKey={self.secret};UseDevelopmentEmulator=true;"
        )

    def broker(self) -> Broker:
        """Settings of it as a namespace, whose connection string is in the variable TEST_SECRET."""
        return Broker(
            bootstrap=f"127.0.0.1:{self.port}",
            protocol="amqp",
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="$ConnectionString",
            sasl_password="env:TEST_SECRET",
        )

    def events(self, hub: str) -> list[tuple[str | None, Any]]:
        """Partition key and message of every event, partition by partition."""
        parts = self.hubs[hub].partitions
        return [(key, decode_payload(memoryview(raw))) for part in parts for key, raw in part]

    def stop(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def take(self, name: str, address: str, kind: int, raw: bytes) -> Any:
        """A transfer to a hub: None where it is taken, else why not."""
        hub, came = self.hubs[name], decode_payload(memoryview(raw))
        annotations = came.message_annotations or {}
        key = annotations.get(KEY)
        key = key.decode() if isinstance(key, bytes) else key
        events = [bytes(part) for part in came.data] if kind == BATCH else [raw]
        with self.lock:
            why = None
            if len(raw) > self.largest:
                why = AMQPError(b"amqp:link:message-size-exceeded", "too large", None)
            elif self.busy:
                self.busy -= 1
                why = AMQPError(b"com.microsoft:server-busy", "slow down", None)
            hub.sendings.append(Sending(time.monotonic(), key, len(events), len(raw), why is None))
            if why is None:
                count = len(hub.partitions)
                _, _, wanted = address.partition("/Partitions/")
                spread = crc32(key.encode()) if key is not None else len(hub.sendings)
                number = int(wanted) if wanted else spread % count
                hub.partitions[number] += [(key, event) for event in events]
            return why


@dataclass
class _Link:
    handle: int
    address: str
    sent: int = 0
    credit: int = 0
    kind: int = 0
    delivery: int = 0
    parts: bytearray = field(default_factory=bytearray)


class _Connection:
    def __init__(self, server: HubServer, connection: socket.socket) -> None:
        self.server, self.socket = server, connection
        self.links: dict[int, _Link] = {}
        self.deliveries, self.channel = 0, b"\x00\x00"

    def run(self) -> None:
        for header in (SASL, AMQP):
            assert self._read(8) == header
            self.socket.sendall(header)
            if header == SASL:
                self._write(frames.SASLMechanism([b"ANONYMOUS"]), kind=b"\x01")
                self._frame()
                self._write(frames.SASLOutcome(0, None), kind=b"\x01")
        answers: dict[int, Callable[[list[Any]], None]] = {
            OPEN: self._open,
            BEGIN: self._begin,
            ATTACH: self._attach,
            FLOW: self._flow,
            TRANSFER: self._transfer,
            DETACH: self._detach,
            END: lambda _: self._write(frames.EndFrame(None)),
        }
        while True:
            code, fields = self._frame()
            if code == CLOSE:
                self._write(frames.CloseFrame(None))
                return
            if code in answers:
                answers[code](fields)

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _frame(self) -> tuple[int, list[Any]]:
        head = self._read(8)
        body = self._read(int.from_bytes(head[:4], "big") - 8)
        if not body:
            return 0, []  # a sign of life
        self.channel = head[6:8]
        found: tuple[int, list[Any]] = decode_frame(memoryview(body)[head[4] * 4 - 8 :])
        return found

    def _write(self, frame: Any, kind: bytes = b"\x00") -> None:
        head, body = encode_frame(frame, kind)
        self.socket.sendall(head + self.channel + (body or b""))

    def _open(self, _fields: list[Any]) -> None:
        self._write(frames.OpenFrame("loopback", None, FRAME_BYTES, 10, None, *[None] * 5))

    def _begin(self, _fields: list[Any]) -> None:
        self._write(
            frames.BeginFrame(
                int.from_bytes(self.channel, "big"), 0, WINDOW, WINDOW, 100, None, None, None
            )
        )

    def _attach(self, fields: list[Any]) -> None:
        name, handle, receives = fields[0], fields[1], bool(fields[2])
        end = fields[5] if receives else fields[6]
        address = (end[0] or b"").decode()
        link = self.links[handle] = _Link(handle, address)
        self._write(
            frames.AttachFrame(
                name=name.decode(),
                handle=handle,
                role=not receives,
                send_settle_mode=0,
                rcv_settle_mode=0,
                source=Source(address=address if receives else "client"),
                target=Target(address="client" if receives else address),
                unsettled=None,
                incomplete_unsettled=None,
                initial_delivery_count=0 if receives else None,
                max_message_size=self.server.largest,
                offered_capabilities=None,
                desired_capabilities=None,
                properties=None,
            )
        )
        hub = _hub_of(address)
        if hub not in self.server.hubs and not hub.startswith("$") and "$" not in address:
            why = AMQPError(b"amqp:not-found", f"no hub {hub}", None)
            self._write(frames.DetachFrame(handle, True, why))
        elif not receives:
            self._write(
                frames.FlowFrame(0, WINDOW, 0, WINDOW, handle, 0, 10_000, None, None, None, None)
            )
        link.credit = 0

    def _flow(self, fields: list[Any]) -> None:
        handle = fields[4]
        if handle is None or handle not in self.links:
            return
        link = self.links[handle]
        link.credit = (fields[5] or 0) + (fields[6] or 0) - link.sent
        if "/Partitions/" in link.address:
            self._pump(link)

    def _pump(self, link: _Link) -> None:
        """What a partition holds, to a client that reads it from its beginning."""
        part = self.server.hubs[_hub_of(link.address)].partitions[
            int(link.address.rpartition("/")[2])
        ]
        while link.credit > 0 and link.sent < len(part):
            key, raw = part[link.sent]
            event = decode_payload(memoryview(raw))
            own: dict[bytes, Any] = {
                b"x-opt-sequence-number": link.sent,
                b"x-opt-offset": str(link.sent),
            }
            if key is not None:
                own[KEY] = key
            body = bytearray()
            encode_payload(body, event._replace(message_annotations=own))
            self._deliver(link, bytes(body))

    def _deliver(self, link: _Link, body: bytes) -> None:
        tag, number = b"%d" % link.sent, self.deliveries
        self.deliveries, link.sent, link.credit = number + 1, link.sent + 1, link.credit - 1
        room = FRAME_BYTES - 512
        for start in range(0, len(body), room):
            part = body[start : start + room]
            more = start + room < len(body)
            self._write(
                frames.TransferFrame(
                    link.handle, number, tag, 0, True, more, None, None, None, None, None, part
                )
            )

    def _transfer(self, fields: list[Any]) -> None:
        link, more, payload = self.links[fields[0]], fields[5], fields[-1]
        if not link.parts:
            link.delivery, link.kind = fields[1], fields[3] or 0
        link.parts += bytes(payload)
        if more:
            return
        raw, link.parts = bytes(link.parts), bytearray()
        why = None
        if link.address in ("$cbs", "$management"):
            self._request(link, raw)
        else:
            why = self.server.take(_hub_of(link.address), link.address, link.kind, raw)
        outcome = Accepted() if why is None else Rejected(why)
        self._write(
            frames.DispositionFrame(True, link.delivery, link.delivery, True, outcome, None)
        )

    def _request(self, link: _Link, raw: bytes) -> None:
        asked = decode_payload(memoryview(raw))
        told = {(k.decode() if isinstance(k, bytes) else k): v for k, v in asked[4].items()}
        code, said, body = 202, "Accepted", None
        if link.address == "$cbs":
            self.server.tokens.append(asked.value.decode())
        if link.address == "$cbs" and self.server.refuses:
            code, said = 401, self.server.refuses
        elif link.address == "$management":
            hub = self.server.hubs.get(told["name"].decode())
            code, said = (200, "OK") if hub else (404, "no such hub")
            if hub:
                ids = [str(number) for number in range(len(hub.partitions))]
                body = {"name": told["name"].decode(), "created_at": 0, "partition_ids": ids}
        answer = Message(
            properties=Properties(correlation_id=asked.properties.message_id),
            application_properties={"status-code": code, "status-description": said},
            value=body,
        )
        data = bytearray()
        encode_payload(data, answer)
        back = next(
            one for one in self.links.values() if one.address == link.address and one is not link
        )
        self._deliver(back, bytes(data))

    def _detach(self, fields: list[Any]) -> None:
        if self.links.pop(fields[0], None):
            self._write(frames.DetachFrame(fields[0], True, None))


def _hub_of(address: str) -> str:
    return (
        address.split("://")[-1].partition("/")[2].split("/")[0]
        if "://" in address
        else address.split("/")[0]
    )
