"""Who writes dialogues: a pretrained model here, or one behind an endpoint."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ilql import sample, tokens
from ilql.sample import PretrainedWriter
from ilql.sampling import Sampling
from ilql.tasks.dialogues import transcript
from ilql.tokens import chat_template_digest
from sweeps.endpoint import Endpoint, UnusableError, key_from
from sweeps.exact_json import Record
from sweeps.replies import Reply, Request, seed_of
from sweeps.stages import pretrained_digest

TOO_LONG = "prompt and reply are longer than the model reads"


@dataclass
class LocalWriter:
    """A pretrained model in a folder; equal blocks get equal replies.

    Attributes:
        folder: The model's.
        chat: Whether it is asked as its chat template has it.
        sampling: How it draws.
    """

    folder: Path
    chat: bool
    sampling: Sampling
    reproducible: bool = field(default=True, init=False)
    together: int = field(default=sample.TOGETHER, init=False)

    @cached_property
    def record(self) -> Record:
        """Digests of model and template, settings, versions."""
        return {
            "model": pretrained_digest(self.folder),
            "chat_template": chat_template_digest(self.folder) if self.chat else "",
            "sampling": dataclasses.asdict(self.sampling),
            "versions": [sample.VERSION, tokens.VERSION],
        }

    @cached_property
    def _model(self) -> PretrainedWriter:
        return PretrainedWriter(self.folder, chat=self.chat)

    def prepare(self) -> None:
        """Load the model.

        Raises:
            ValueError: There is none that can be read.
        """
        assert self._model is not None

    def write(self, requests: Sequence[Request], seed: int) -> Iterator[tuple[str, Reply]]:
        """See `Writer`; a prompt that is too long for the model is a problem of its own."""
        (opening,) = {request.opening for request in requests} if not self.chat else {""}
        fitting = [request for request in requests if self._model.fits(request.prompt, opening, self.sampling)]
        texts: dict[str, str] = {}
        if fitting:
            written = self._model.write(
                [request.prompt for request in fitting],
                self.sampling,
                seed=seed_of(seed, requests[0].name),
                last_line=transcript.END,
                opening=opening,
            )
            texts = {request.name: text for request, text in zip(fitting, written, strict=True)}
        for request in requests:
            text = texts.get(request.name)
            yield request.name, Reply(None, TOO_LONG) if text is None else Reply(text)


@dataclass
class EndpointWriter:
    """A model behind an endpoint, asked by several threads; nobody can draw its replies again.

    Attributes:
        endpoint: Where it is; replaced by one with the key when it is made ready.
        key_variable: The environment variable with the key, or None.
        sampling: How it is to draw.
        concurrent: Requests under way at a time.
    """

    endpoint: Endpoint
    key_variable: str | None
    sampling: Sampling
    concurrent: int
    reproducible: bool = field(default=False, init=False)
    together: int = field(default=64, init=False)

    @property
    def record(self) -> Record:
        """Address and name, settings. Which weights answer there, now or later, nobody can know."""
        return {
            "endpoint": self.endpoint.address,
            "model": self.endpoint.model,
            "sampling": dataclasses.asdict(self.sampling),
        }

    def prepare(self) -> None:
        """Read the key.

        Raises:
            ValueError: It is not there, or is none.
        """
        self.endpoint = dataclasses.replace(self.endpoint, key=key_from(self.key_variable))

    def write(self, requests: Sequence[Request], seed: int) -> Iterator[tuple[str, Reply]]:
        """See `Writer`. When the endpoint fails, requests that are under way are let come to their end.

        Raises:
            EndpointError: It failed.
        """
        waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[str, Reply] | BaseException | None] = queue.SimpleQueue()
        stopped = threading.Event()
        for request in requests:
            waiting.put(request)

        def work() -> None:
            try:
                while not stopped.is_set():
                    request = waiting.get_nowait()
                    done.put((request.name, self._ask(request, seed, stopped)))
            except queue.Empty:
                pass
            except BaseException as fault:  # noqa: BLE001  raised again where somebody sees it
                stopped.set()
                done.put(fault)
            finally:
                done.put(None)

        threads = min(self.concurrent, len(requests))
        for _ in range(threads):  # daemons: whoever stops the program does not wait for a slow endpoint
            threading.Thread(target=work, daemon=True).start()
        faults: list[BaseException] = []
        try:
            while threads:
                item = done.get()
                if item is None:
                    threads -= 1
                elif isinstance(item, BaseException):
                    faults.append(item)
                else:
                    yield item
        finally:
            stopped.set()
        if faults:
            raise faults[0]

    def _ask(self, request: Request, seed: int, stopped: threading.Event) -> Reply:
        try:
            own = seed_of(seed, request.name)
            return Reply(self.endpoint.write(request.prompt, self.sampling, seed=own, stopped=stopped))
        except UnusableError as problem:
            return Reply(None, str(problem))
