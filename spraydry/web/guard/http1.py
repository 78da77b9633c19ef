"""HTTP/1.1 as Hypercorn speaks it, but that a body is asked for once it is wanted, and no other protocol taken up."""

from __future__ import annotations

import h11
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Event, Response
from hypercorn.protocol.h11 import H11Protocol

_REFUSED = 400


class Http1(H11Protocol):
    """For one connection.

    `Expect: 100-continue` is answered once a handler wants the body. An answer that refuses a request before all of its
    body was there says that the connection ends, for nobody will read the rest. `Upgrade: h2c` is passed over, as it
    may be (RFC 9110, 7.8): HTTP/2 without TLS is spoken to whoever begins with it."""

    @classmethod
    def instead_of(cls, wrapper: ProtocolWrapper) -> None:
        """Take the place of Hypercorn's own, where that is HTTP/1.1."""
        if isinstance(wrapper.protocol, H11Protocol):
            made = cls(
                wrapper.app,
                wrapper.config,
                wrapper.context,
                wrapper.task_group,
                wrapper.state,
                wrapper.ssl,
                wrapper.client,
                wrapper.server,
                wrapper.send,
            )
            made.connection = _Uninvited(h11.SERVER, max_incomplete_event_size=wrapper.config.h11_max_incomplete_size)
            wrapper.protocol = made

    async def invite(self) -> None:
        """Somebody wants the body: let a client that waits for that send it."""
        if isinstance(self.connection, _Uninvited) and self.connection.client_is_waiting_for_100_continue:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def stream_send(self, event: Event) -> None:
        """What a handler answers."""
        if isinstance(event, Response) and event.status_code >= _REFUSED:
            said = any(name.lower() == b"connection" for name, _ in event.headers)
            if self.connection.their_state is h11.SEND_BODY and not said:
                event.headers.append((b"connection", b"close"))
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.method == b"PRI" and not list(event.headers):
            await super()._check_protocol(event)


class _Uninvited(h11.Connection):
    """Hypercorn invites every body before it knows whether anybody wants it."""

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        return False
