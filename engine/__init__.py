"""This folder is the scheduler without its web layer: open one, start a run, await its summary."""

from engine.capacity import Capacity, advise, measure_capacity
from engine.comparison import digest_of, is_same
from engine.database import Database, open_database
from engine.doctor.examine import examine
from engine.doctor.finding import Finding
from engine.embedded import find_binaries, open_embedded_postgres
from engine.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    Draining,
    DryRunUnsupported,
    EmbeddedPostgresError,
    FleetUnavailable,
    InvalidOverride,
    InvalidTick,
    MentorNotFound,
    MigrationError,
    NotNow,
    NotReady,
    OverridesUnsupported,
    RequestRefused,
    RunFailed,
    RunInProgress,
    SchedulerError,
    StatementFailed,
    TickError,
    UnknownScenarioType,
)
from engine.explanation import Explanation, Outcome, ScenarioExplanation, Visit
from engine.fleet.protocol import ACK_WAIT
from engine.fleet.worker import Worker
from engine.freshness import Freshness
from engine.histogram import Histogram
from engine.ledger import LEASE, Verdict
from engine.live_run import LiveRun, live_run_elsewhere, live_run_with_shards
from engine.measures import Measures, Totals
from engine.migrations import migrate
from engine.opening import open_scheduler, open_worker
from engine.overrides import Overrides, parse_overrides
from engine.overview import Overview
from engine.remedies import remedy_of
from engine.rhythm import Rhythm, find_rhythm
from engine.rights import grant_rights, service_database_url, set_service_password
from engine.run_record import RunRecord, find_run, list_runs
from engine.scheduler import RunRequest, Scheduler
from engine.seeding import seed_mentors
from engine.settings import (
    MAX_MENTORS_OVER_HTTP,
    Settings,
    is_loopback,
    leads_to_this_machine,
    load_settings,
    service_url,
)
from engine.shard_record import ShardRecord, idle_for, list_shards
from engine.started_run import StartedRun
from engine.tally import StopReason, Summary
from engine.tick.diagnosis import describe_first_ticks, diagnose
from engine.tick.install import enabled_scenario_types, install_tick, remove_tick
from engine.tick.jobs import plan_jobs
from engine.tick.status import TickStatus, read_tick_status
from engine.trigger.in_database import EVALUATIONS_AT_ONCE, InDatabaseTriggerEngine
from engine.trigger.protocol import SCENARIO_TYPE_PATTERN

__all__ = [
    "ACK_WAIT",
    "EVALUATIONS_AT_ONCE",
    "LEASE",
    "MAX_MENTORS_OVER_HTTP",
    "SCENARIO_TYPE_PATTERN",
    "Capacity",
    "ConfigurationError",
    "Database",
    "DatabaseUnavailable",
    "Draining",
    "DryRunUnsupported",
    "EmbeddedPostgresError",
    "Explanation",
    "Finding",
    "FleetUnavailable",
    "Freshness",
    "Histogram",
    "InDatabaseTriggerEngine",
    "InvalidOverride",
    "InvalidTick",
    "LiveRun",
    "Measures",
    "MentorNotFound",
    "MigrationError",
    "NotNow",
    "NotReady",
    "Outcome",
    "Overrides",
    "OverridesUnsupported",
    "Overview",
    "RequestRefused",
    "Rhythm",
    "RunFailed",
    "RunInProgress",
    "RunRecord",
    "RunRequest",
    "ScenarioExplanation",
    "Scheduler",
    "SchedulerError",
    "Settings",
    "ShardRecord",
    "StartedRun",
    "StatementFailed",
    "StopReason",
    "Summary",
    "TickError",
    "TickStatus",
    "Totals",
    "UnknownScenarioType",
    "Verdict",
    "Visit",
    "Worker",
    "advise",
    "describe_first_ticks",
    "diagnose",
    "digest_of",
    "enabled_scenario_types",
    "examine",
    "find_binaries",
    "find_rhythm",
    "find_run",
    "grant_rights",
    "idle_for",
    "install_tick",
    "is_loopback",
    "is_same",
    "leads_to_this_machine",
    "list_runs",
    "list_shards",
    "live_run_elsewhere",
    "live_run_with_shards",
    "load_settings",
    "measure_capacity",
    "migrate",
    "open_database",
    "open_embedded_postgres",
    "open_scheduler",
    "open_worker",
    "parse_overrides",
    "plan_jobs",
    "read_tick_status",
    "remedy_of",
    "remove_tick",
    "seed_mentors",
    "service_database_url",
    "service_url",
    "set_service_password",
]
