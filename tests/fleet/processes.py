"""This file is a fleet as its users start it: services and workers in processes of their own, over NATS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from tests.end_to_end.conftest import ENVIRONMENT, PATIENCE, arguments_of, as_service


class WorkerProcess:
    """A process that works."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file

    def log(self) -> str:
        """Whole lines only: the last one may be half written."""
        return self._log_file.read_text().rpartition("\n")[0]

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self.log().splitlines())
        return [line for line in lines if line["event"] == event]

    async def wait_until_logged(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        with trio.fail_after(PATIENCE):
            while len(lines := self.logged(event)) < times:
                assert self.process.poll() is None, self.log()
                await trio.sleep(0.01)
        return lines

    @property
    def name(self) -> str:
        """What the ledger knows it by."""
        [line] = self.logged("working")
        return str(line["worker"])

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Returns when it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def exit_code(self) -> int:
        with trio.fail_after(PATIENCE):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)


StartWorker = Callable[..., Awaitable[WorkerProcess]]


@contextmanager
def open_workers(folder: Path) -> Iterator[StartWorker]:
    """Start a worker with these settings, and wait until it works; killed with the block. Logs go there."""
    processes: list[subprocess.Popen[bytes]] = []

    async def start(*arguments: str, **settings: str) -> WorkerProcess:
        settings["DATABASE_URL"] = await as_service(settings["DATABASE_URL"])
        log_file = folder / f"worker-{len(processes)}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - forking blocks for a moment
                arguments_of("worker", *arguments),
                env=ENVIRONMENT | settings,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        processes.append(process)
        worker = WorkerProcess(process, log_file)
        await worker.wait_until_logged("working")
        return worker

    try:
        yield start
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
