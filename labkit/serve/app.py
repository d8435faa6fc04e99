"""The engine behind HTTP, on this machine: one base, an adapter by name with each request.

    POST /generate   {"prompt": "...", "adapter": "ada" or null, "max_new_tokens": 48}
    GET  /adapters   {"adapters": ["ada", "bob"], "held": [...]}

    400   no JSON object, a field that is missing, unknown or of another kind, too long a prompt
    404   no adapter of that name, whatever the name tries to reach
    408   the body did not come in time          413   the body is too large
    500   the adapter is there and cannot be loaded, or the model failed
    503   too many requests wait, or the server stops: come back later
    504   no answer in time

    with serving(engine) as url: ...         in a thread, on a free port, until the block ends

At the end no request is taken, and those in flight are answered. Left out on purpose: accounts,
limits by client, encryption and streaming; a server that others reach stands behind a proxy.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse
from starlette.routing import Route

from labkit.adapters import AdapterError
from labkit.project import LabkitError
from labkit.serve.engine import Busy, Engine, Failed, Request
from labkit.serve.shelf import UnknownAdapter

BODY = 16 * 1024  # bytes of a request
NEW_TOKENS = 256  # the most that a request may ask for
KNOWN = (UnknownAdapter, Busy, TimeoutError, AdapterError, Failed, ValueError)
FIELDS = {"prompt", "adapter", "max_new_tokens"}


class ServerError(LabkitError, RuntimeError):
    """The server did not begin, or did not end."""


def parse(body: bytes) -> Request:
    """The request that a body asks for.

    Raises:
        ValueError: says which field is wrong, and how.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is no JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise ValueError("the body has to be a JSON object")
    if odd := sorted(set(found) - FIELDS):
        raise ValueError(f"{odd[0]!r} is no field: there are {', '.join(sorted(FIELDS))}")
    prompt, adapter = found.get("prompt"), found.get("adapter")
    limit = found.get("max_new_tokens", Request.max_new_tokens)
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("prompt has to be a text that is not empty")
    if adapter is not None and not isinstance(adapter, str):
        raise ValueError("adapter has to be a name, or null for the base")
    if type(limit) is not int or not 1 <= limit <= NEW_TOKENS:
        raise ValueError(f"max_new_tokens has to be a whole number, 1 to {NEW_TOKENS}")
    prompt.encode()  # half of a surrogate pair is no text: UnicodeEncodeError, a ValueError
    return Request(prompt, adapter, limit)


async def read_body(asked: Asked, limit: int) -> bytes:
    """The body, as long as it keeps within the limit.

    Raises:
        HTTPException: 413, before more than the limit is held.
    """
    told = asked.headers.get("content-length", "0")
    body = b""
    if not told.isdigit() or int(told) <= limit:
        async for chunk in asked.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return body
    raise HTTPException(413, f"a request may have {limit} bytes")


def application(engine: Engine, body_limit: int = BODY, seconds: float = 30.0) -> Starlette:
    """The engine as an ASGI application; it starts and stops the engine.

    Args:
        body_limit: bytes of a request.
        seconds: for its body to come, and again for the answer.
    """

    async def generate(asked: Asked) -> JSONResponse:
        try:
            body = await asyncio.wait_for(read_body(asked, body_limit), seconds)
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {seconds:g} s") from error
        begin = time.perf_counter()
        try:
            reply = await asyncio.wait_for(engine.answer(parse(body)), seconds)
        except KNOWN as error:
            raise _said(error, seconds) from error
        took = round(time.perf_counter() - begin, 4)
        return JSONResponse(vars(reply) | {"seconds": took})

    async def adapters(_: Asked) -> JSONResponse:
        return JSONResponse({"adapters": engine.shelf.names, "held": engine.bank.held})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.stop()

    return Starlette(
        routes=[
            Route("/generate", generate, methods=["POST"]),
            Route("/adapters", adapters, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _error},
        lifespan=lifespan,
    )


def _said(error: Exception, seconds: float) -> HTTPException:
    """What went wrong, as a status and a sentence."""
    if isinstance(error, UnknownAdapter):
        return HTTPException(404, str(error.args[0]))
    if isinstance(error, Busy):
        return HTTPException(503, str(error), {"Retry-After": "1"})
    if isinstance(error, TimeoutError):
        return HTTPException(504, f"no answer within {seconds:g} s")
    return HTTPException(400 if isinstance(error, ValueError) else 500, str(error))


async def _error(_: Asked, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    with suppress(SystemExit):  # so it ends where it cannot begin; `started` then stays false
        server.run(sockets=[listening])


@contextmanager
def serving(engine: Engine, port: int = 0, **limits: Any) -> Iterator[str]:  # noqa: ANN401
    """Within it the engine answers at the address that it yields, on this machine alone.

    Args:
        port: 0 for any that is free.
        limits: as `application` takes them.

    Raises:
        ServerError: if it does not begin, or requests in flight do not end in time.
    """
    seconds = limits.get("seconds", 30.0)
    config = uvicorn.Config(
        application(engine, **limits),
        log_level="critical",
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=int(seconds) + 5,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port), backlog=config.backlog) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=_run, args=(server, listening), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        if not server.started:
            raise ServerError("the server did not begin: look at the engine's start")
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(seconds + 10)
    if thread.is_alive():
        raise ServerError(f"the server did not end within {seconds + 10:g} s")
