"""This file is the call that Procrastinate makes for one mentor, in a module of its own as its docs ask."""

from __future__ import annotations

import procrastinate

tasks = procrastinate.Blueprint()


@tasks.task(pass_context=True)
async def evaluate(context: procrastinate.JobContext, mentor_id: str, run_id: str) -> None:
    body = {"mentor_id": mentor_id, "scenario_types": None, "dry_run": False, "run_id": run_id}
    session, url = context.additional_context["session"], context.additional_context["url"]
    async with session.post(url, json=body) as response:
        response.raise_for_status()
        await response.json()
