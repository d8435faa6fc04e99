"""Requests in, small batches through the bank, answers out.

    arrive -> waiting (bounded) -> a batch of rows, each with its adapter -> one generate -> answers

A batch takes what has come within `window` seconds of its first request, in their order, up to
`batch` rows and as many adapters as the bank has slots. The model runs in one thread of its own, so
the loop that takes requests in never waits for it.

Left out on purpose: continuous batching. A row that ends early waits for the longest of its batch;
vLLM and S-LoRA put a new request in its place. An adapter that changes on disk is not read again.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from labkit.adapters import AdapterError
from labkit.data import chat
from labkit.serve.bank import Bank
from labkit.serve.shelf import Shelf, UnknownAdapter, adapter_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Busy(Exception):
    """No room for another request, or no more are taken."""


class Failed(Exception):
    """The model could not answer; its cause says why."""


@dataclass(frozen=True)
class Request:
    """One question to one adapter; None is the base."""

    prompt: str
    adapter: str | None = None
    max_new_tokens: int = 48


@dataclass(frozen=True)
class Reply:
    """The answer, and how it came about."""

    text: str
    adapter: str | None
    tokens: int  # written, the end of turn included
    batch: int  # rows that were answered together


@dataclass
class _Waiting:
    request: Request
    answer: asyncio.Future = field(repr=False)


@torch.no_grad()
def replies(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    limits: Sequence[int],
) -> list[tuple[str, int]]:
    """The greedy continuation of each text and its number of tokens, all in one batch.

    Args:
        texts: chats with the answer's place open; padded on the left.
        limits: the most tokens that each may write.
    """
    encoded = tokenizer(
        list(texts), add_special_tokens=False, padding=True, padding_side="left",
        return_tensors="pt",
    ).to(model.device)  # fmt: skip
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    written = model.generate(
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        max_new_tokens=max(limits),
        do_sample=False,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )[:, encoded.input_ids.shape[1] :]
    rows = [row[:limit] for row, limit in zip(written, limits, strict=True)]
    counts = [int((row != tokenizer.pad_token_id).sum()) for row in rows]
    said = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return list(zip(said, counts, strict=True))


class Engine:
    """Micro-batches over one bank.

    Args:
        batch: the most rows answered together.
        waiting: the most requests that wait; one more is refused.
        window: seconds that the first request of a batch waits for others.
    """

    def __init__(
        self, shelf: Shelf, bank: Bank, batch: int = 32, waiting: int = 512, window: float = 0.005
    ) -> None:
        self.shelf, self.bank = shelf, bank
        self.batch, self.room, self.window = batch, waiting, window
        self._waiting: deque[_Waiting] = deque()
        self._open = False

    async def start(self) -> None:
        """Take requests from now on, in the loop that runs."""
        self._come, self._open = asyncio.Event(), True
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Take no more requests, answer those that wait, and end."""
        self._open = False
        self._come.set()
        await self._task
        self._thread.shutdown()

    async def answer(self, request: Request) -> Reply:
        """The answer to one request.

        Raises:
            UnknownAdapter: the shelf has none of that name.
            Busy: too many wait already, or the engine stops.
            ValueError: the prompt and its answer are longer than the model's context.
            AdapterError: the adapter cannot be loaded.
            Failed: the model broke off.
        """
        if request.adapter is not None:
            adapter_folder(self.shelf.root, request.adapter)
        self._fits(request)
        if not self._open:
            raise Busy("the server stops and takes no more requests")
        if len(self._waiting) >= self.room:
            raise Busy(f"no room: {self.room} waiting already")
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._come.set()
        return await waiting.answer

    def _fits(self, request: Request) -> None:
        text = chat(self.shelf.base.tokenizer, request.prompt)
        tokens = len(self.shelf.base.tokenizer(text, add_special_tokens=False).input_ids)
        most = self.bank.model.config.max_position_embeddings
        if tokens + request.max_new_tokens > most:
            raise ValueError(
                f"{tokens} tokens and {request.max_new_tokens} new ones: the model has room for "
                f"{most}"
            )

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._open or self._waiting:
            if not self._waiting:
                self._come.clear()
                await self._come.wait()
                continue
            if self._open:
                await asyncio.sleep(self.window)
            taken = self._take()
            if taken:
                done = await loop.run_in_executor(
                    self._thread, self._answer, [one.request for one in taken]
                )
                for one, said in zip(taken, done, strict=True):
                    if one.answer.done():  # its client has given up
                        continue
                    if isinstance(said, Exception):
                        one.answer.set_exception(said)
                    else:
                        one.answer.set_result(said)

    def _take(self) -> list[_Waiting]:
        """The next rows: the oldest, as long as their adapters find slots; the others stay."""
        taken: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        names: set[str] = set()
        for one in self._waiting:
            name = one.request.adapter
            fits = name is None or name in names or len(names) < self.bank.slots
            if one.answer.done():
                continue
            if len(taken) < self.batch and fits:
                taken.append(one)
                names |= {name} - {None}
            else:
                left.append(one)
        self._waiting = left
        return taken

    def _answer(self, requests: Sequence[Request]) -> list[Reply | Exception]:
        """In the model's thread: a reply for each request, or what went wrong with it."""
        wrong = self._load({r.adapter for r in requests} - {None})
        able = [r for r in requests if r.adapter not in wrong]
        said: dict[int, Reply | Exception] = {}
        try:
            done = self._generate(able) if able else []
            said = {id(r): reply for r, reply in zip(able, done, strict=True)}
        except Exception as error:  # of any kind: each request hears of it, and the next goes on
            failed = Failed(f"the model failed: {type(error).__name__}")
            failed.__cause__ = error
            said = {id(r): failed for r in able}
        return [wrong.get(r.adapter) or said[id(r)] for r in requests]

    def _load(self, names: set[str]) -> dict[str | None, Exception]:
        """Put adapters into slots; returns what went wrong with which."""
        wrong: dict[str | None, Exception] = {}
        for name in sorted(names - set(self.bank.held)):
            try:
                self.bank.put(name, self.shelf.read(name), keep=sorted(names))
            except (AdapterError, UnknownAdapter) as error:
                wrong[name] = error
        return wrong

    def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        tokenizer = self.shelf.base.tokenizer
        texts = [chat(tokenizer, r.prompt) for r in requests]
        with self.bank.chosen([r.adapter for r in requests]) as model:
            said = replies(model, tokenizer, texts, [r.max_new_tokens for r in requests])
        return [
            Reply(text, r.adapter, tokens, len(requests))
            for r, (text, tokens) in zip(requests, said, strict=True)
        ]
