"""The served application against its own document, by schemathesis: no 500, no undocumented answer.

Its command line, in a process of its own: as a library it would share pytest's warnings, and hypothesis's
settings, with whatever else is tested.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.end_to_end.conftest import ENVIRONMENT, KEY, SECRET, Service, StartService, query
from web.openapi import EXAMPLE_ID

TOKEN = "operator-token-of-32-characters!"

CREDENTIALS = f"""
[auth.openapi]
sharedSecret = {{ api_key = "{SECRET}" }}
serviceRoleKey = {{ bearer = "{KEY}" }}
operatorToken = {{ bearer = "{TOKEN}" }}
"""

# Which scenario types there are is known to the database alone: one of the right form may be refused.
EXCEPTIONS = """
[[operations]]
include-path = ["/run", "/trigger-engine"]
[operations.checks]
positive_data_acceptance.expected-statuses = ["2xx", "422"]
"""

ONE_MENTOR = """
with m as (insert into public.peer_mentors (id, user_id, status, created_at)
           values ($1, gen_random_uuid(), 'active', now() - interval '30 days') returning id)
insert into public.assignments (id, mentor_id, status, expires_at)
select gen_random_uuid(), id, 'active', current_date + 365 from m
"""

# For each operation, of what is made up; what its document gives and where its bounds are comes on top.
EXAMPLES = 30

NOTHING_LISTENS = "postgresql://nobody@127.0.0.1:1/nowhere"

# Of its checks, those that a 503 may pass.
OF_THE_DOCUMENT = ",".join(
    f"{what}_conformance" for what in ("status_code", "content_type", "response_headers", "response_schema")
)


async def start(database_url: str, start_service: StartService) -> Service:
    """With a mentor and a run of the id that the document gives as an example."""
    await query(database_url, ONE_MENTOR, EXAMPLE_ID)
    service = await start_service(DATABASE_URL=database_url, SCHEDULER_OPERATOR_TOKEN=TOKEN)
    await service.tick()
    await query(database_url, "update scheduler.runs set id = $1", EXAMPLE_ID)
    return service


def schemathesis(
    service: Service, document: dict[str, Any], folder: Path, config: str, checks: str = "all"
) -> str:
    """Have it send what it can think of, and return what it says where it found something."""
    (folder / "schemathesis.toml").write_text(config)
    # From a file, because it leaves out the path that it had the document from.
    (folder / "openapi.json").write_text(json.dumps(document))
    arguments = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file=schemathesis.toml",
        "run",
        "openapi.json",
        f"--url={service.url}",
        f"--checks={checks}",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={EXAMPLES}",
        "--generation-deterministic",
        "--continue-on-failure",
        "--report=ndjson",
        "--report-ndjson-path=report.ndjson",
        "--no-color",
    ]
    environment = {name: value for name, value in ENVIRONMENT.items() if "proxy" not in name.lower()}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def answered(folder: Path) -> set[tuple[str, int]]:
    """Every operation that was called by its own method, with every status that it answered."""
    found = set()
    for line in (folder / "report.ndjson").read_text().splitlines():
        for recorder in [event.get("recorder") or {} for event in json.loads(line).values()]:
            for call in recorder.get("interactions", {}).values():
                if recorder["label"].startswith(f"{call['request']['method']} "):
                    found.add((recorder["label"], call["response"]["status_code"]))
    return found


def operations_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


async def test_whoever_holds_the_credentials_gets_no_500_and_nothing_undocumented(
    database_url: str, start_service: StartService, tmp_path: Path
) -> None:
    service = await start(database_url, start_service)
    document = (await service.get("/openapi.json")).json()
    found = await trio.to_thread.run_sync(
        partial(schemathesis, service, document, tmp_path, CREDENTIALS + EXCEPTIONS)
    )
    assert not found, found
    assert "Traceback" not in service.log()
    # It came as far as there is to come: past the credentials, and into the reading of every body.
    answers = answered(tmp_path)
    for name, operation in operations_of(document).items():
        assert (name, 200) in answers
        if "requestBody" in operation:
            assert {(name, 415), (name, 422)} <= answers
        if operation["security"]:
            assert (name, 401) in answers


async def test_a_stranger_gets_no_500_and_nothing_undocumented(
    database_url: str, start_service: StartService, tmp_path: Path
) -> None:
    service = await start(database_url, start_service)
    document = (await service.get("/openapi.json")).json()
    found = await trio.to_thread.run_sync(partial(schemathesis, service, document, tmp_path, config=""))
    assert not found, found
    assert "Traceback" not in service.log()
    answers = answered(tmp_path)
    for name, operation in operations_of(document).items():
        assert {status for label, status in answers if label == name} == (
            {401} if operation["security"] else {200}
        )


async def test_without_a_database_everything_is_a_documented_503(
    start_service: StartService, tmp_path: Path
) -> None:
    service = await start_service(DATABASE_URL=NOTHING_LISTENS, SCHEDULER_OPERATOR_TOKEN=TOKEN)
    document = (await service.get("/openapi.json")).json()
    found = await trio.to_thread.run_sync(
        partial(schemathesis, service, document, tmp_path, CREDENTIALS, OF_THE_DOCUMENT)
    )
    assert not found, found
    assert "Traceback" not in service.log()
    answers = answered(tmp_path)
    assert {name for name, status in answers if status == 503} == operations_of(document).keys() - {
        "GET /healthz",
        "GET /metrics",
        "GET /openapi.json",
    }
    assert not {name for name, status in answers if status == 500}
