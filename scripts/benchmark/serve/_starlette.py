"""The files of a folder from memory, by the least that Starlette can do, on Hypercorn as spraydry sets it.

FOLDER, run by the Python that has both. Prints where it listens.
"""

from __future__ import annotations

import os
import socket
import sys

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.run import worker_serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILES: dict[str, bytes] = {}


async def one(request: Request) -> Response:
    return Response(FILES[request.path_params["path"]], media_type="application/octet-stream")


def main(folder: str) -> None:
    for inner, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inner, name)
            with open(path, "rb") as file:
                FILES[os.path.relpath(path, folder)] = file.read()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listening.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = 75.0
    app = ASGIWrapper(Starlette(routes=[Route("/{path:path}", one)]))
    print(f"http://127.0.0.1:{port}", flush=True)
    trio.run(worker_serve, app, config)


if __name__ == "__main__":
    main(sys.argv[1])
