"""What the small servers of the bench share: a free port, and a line that says which."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable


async def serve(factory: Callable[[], asyncio.BaseProtocol]) -> None:
    """Serve on a free loopback port for ever; says so as our proxy does."""
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, backlog=2048)
    host, port = server.sockets[0].getsockname()
    print(json.dumps({"message": "ready", "addresses": [f"{host}:{port}"]}), flush=True)
    await server.serve_forever()
