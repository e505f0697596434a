"""This file times what one invocation costs when the trigger engine takes no time at all.

    python -m bench.overhead [--mentors 5000] [--rounds 5]

Our transports, the edge function and aiohttp take turns over the same database and the same stand-in, after a
round that warms them up. The stand-in and Postgres run on the same cores and are in every figure.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
from contextlib import ExitStack

import structlog
import trio

from bench.peers import open_peer, versions
from bench.results import write_result
from bench.walk import measure_rounds, our_walk, ratio, seed, summarize, trigger_engine_process
from engine import find_binaries, open_embedded_postgres

TRANSPORTS = ("direct", "httpx", "asks")
PEERS = ("deno", "aiohttp")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with ExitStack() as stack:
        postgres = stack.enter_context(open_embedded_postgres(find_binaries(None)))
        trigger_engine = stack.enter_context(trigger_engine_process("none"))
        trio.run(seed, postgres.dsn, arguments.mentors)
        walks = {}
        for transport in TRANSPORTS:
            if transport != "asks" or importlib.util.find_spec("asks"):
                walks[transport] = our_walk(postgres.dsn, trigger_engine, transport)
        for peer in PEERS:
            walks[peer] = stack.enter_context(open_peer(peer, postgres.dsn, trigger_engine))
        measured = measure_rounds(
            walks, trigger_engine, mentors=arguments.mentors, latency="none", rounds=arguments.rounds
        )
    figures = summarize(measured, arguments.mentors)
    for name, figure in figures.items():
        print(f"{name}: median {figure['us_per_mentor']:.0f} us a mentor")
    ratios = {peer: ratio(figures, "direct", peer) for peer in PEERS}
    for peer, value in ratios.items():
        print(f"direct / {peer}: {value:.3f}")
    write_result(
        "overhead",
        {
            "mentors": arguments.mentors,
            "walks": figures,
            "direct_to": ratios,
            "peers": versions(PEERS),
            "postgres": postgres.version,
        },
    )


if __name__ == "__main__":
    main()
