"""This file starts the edge function, asks it to run, and times it from the POST to its summary.

    python -m bench.peers.deno_walk --database URL --trigger-engine URL [--on-request]

`pip install deno` brings the runtime. `npm:pg` is fetched into a temporary folder before the function starts,
which then may reach nothing but this machine.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import deno
import httpx

from bench.peers import SERVICE_ROLE_KEY, WALK_TIMEOUT, parse_arguments, report, requests

FUNCTION = Path(__file__).parent / "edge_function.ts"
LISTENING = re.compile(rb"http://127\.0\.0\.1:(\d+)/")

# A walk that the guard stops can't be compared with one that was finished.
TIMEOUT_THRESHOLD_MS = WALK_TIMEOUT * 1000


@contextmanager
def open_edge_function(database_url: str, trigger_engine: str, secret: str) -> Iterator[str]:
    """Yields the URL of the edge function, in a process of its own that may do no more than it must."""
    executable = deno.find_deno_bin()
    hosts = ",".join(
        f"{urlsplit(url).hostname}:{urlsplit(url).port}" for url in (database_url, trigger_engine)
    )
    with tempfile.TemporaryDirectory(prefix="bench-deno-") as folder:
        quiet = {"DENO_DIR": folder, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
        subprocess.run(
            [executable, "cache", "--quiet", "--no-config", "--no-lock", FUNCTION],
            env=os.environ | quiet,
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )
        command = [
            *(executable, "run", "--cached-only", "--no-prompt", "--no-config", "--no-lock"),
            *("--allow-env", f"--allow-net=127.0.0.1:0,{hosts}", str(FUNCTION)),
        ]
        # All that it can see of the environment.
        environment = quiet | {
            "DENO_SERVE_ADDRESS": "tcp:127.0.0.1:0",
            "DATABASE_URL": database_url,
            "TRIGGER_ENGINE_URL": trigger_engine,
            "SCHEDULER_SECRET": secret,
            "SUPABASE_SERVICE_ROLE_KEY": SERVICE_ROLE_KEY,
            "TIMEOUT_THRESHOLD_MS": str(TIMEOUT_THRESHOLD_MS),
        }
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            try:
                yield f"http://127.0.0.1:{_listening_port(process)}/"
            finally:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _listening_port(process: subprocess.Popen[bytes]) -> int:
    """The port that the function says it listens on; what it says later is read and thrown away."""
    assert process.stderr is not None
    said = b""
    give_up_at = time.monotonic() + 30
    while (match := LISTENING.search(said)) is None:
        ready, _, _ = select.select([process.stderr], [], [], max(0, give_up_at - time.monotonic()))
        more = os.read(process.stderr.fileno(), 4096) if ready else b""
        if not more:
            raise RuntimeError(f"the edge function did not start: {said.decode(errors='replace')}")
        said += more
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return int(match[1])


def main(arguments: argparse.Namespace) -> None:
    secret = secrets.token_hex(32)
    with (
        open_edge_function(arguments.database, arguments.trigger_engine, secret) as url,
        httpx.Client(trust_env=False, timeout=WALK_TIMEOUT) as client,
    ):
        assert client.post(url).status_code == 401
        for _ in requests(arguments):
            began = time.perf_counter()
            answer = client.post(url, headers={"X-Scheduler-Secret": secret})
            seconds = time.perf_counter() - began
            summary = answer.raise_for_status().json()
            assert summary["completed"], summary
            assert summary["total_evaluated"] == summary["total_active_mentors"], summary
            report(seconds, summary["total_evaluated"])


if __name__ == "__main__":
    main(parse_arguments(__doc__))
