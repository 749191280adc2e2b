"""The server: one process, one port, until it is stopped."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import rubix_token_sync as rts
from rubix_token_sync.web.options import ServeOptions, extra_missing

__all__ = ["serve_page"]

_LOG = logging.getLogger(__name__)


def serve_page(
    configuration: rts.Configuration,
    options: ServeOptions,
    on_ready: Callable[[str], None] = lambda _address: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; ``on_ready`` gets the address.

    Raises:
        SettingsError: it would be open to anybody, the port is taken, or the extra is missing.
        TargetError: the target cannot be reached, or no sync has made its tables.
    """
    options.check()
    try:
        import uvicorn

        from rubix_token_sync.web.app import make_app
    except ImportError as error:
        raise extra_missing() from error
    with rts.open_target(configuration=configuration) as reader, _listening(options) as listener:
        app: Any = make_app(configuration, reader, options)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # which headers are believed is `Access`'s to decide
                timeout_graceful_shutdown=3,
                timeout_keep_alive=15,
                limit_concurrency=400,
                h11_max_incomplete_event_size=32_768,
            )
        )
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}{options.root_path}/"
        rts.log_event(_LOG, logging.INFO, "web_started", f"The page is served on {address}.")
        on_ready(address)
        server.run(sockets=[listener])


def _listening(options: ServeOptions) -> socket.socket:
    """Bound before anything is said, so that a clash of ports is an error and no log line."""
    try:
        family, _, _, _, place = socket.getaddrinfo(
            options.host.strip("[]"), options.port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(256)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        why = "no address can be called that"
        if isinstance(error, OSError):
            why = error.strerror or str(error)
        raise rts.SettingsError(
            f"The page cannot be served on {options.host}:{options.port}: {why}.",
            code="web_port_taken",
            remedy="Choose another port by --port, or another address by --host.",
        ) from error
    return listener
