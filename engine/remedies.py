"""This file is what to do about an error class: a sentence for who reads it, in the log or on the page."""

from __future__ import annotations

# By the beginning of the class; the longest one that fits counts.
_REMEDIES = {
    "timeout": "It took longer than SCHEDULER_INVOCATION_TIMEOUT: see why the trigger engine is slow.",
    "connection_refused": "Check that SCHEDULER_TRIGGER_ENGINE is right, and up, and its certificate valid.",
    "connection_": "The connection broke off: see whether the trigger engine, or a proxy, was restarted.",
    "out_of_files": "This process has as many files and connections open as it may: raise ulimit -n.",
    "redirect": "Redirects are not followed: set SCHEDULER_TRIGGER_ENGINE to where it leads.",
    "http_": "See the log of the trigger engine for why it answered with this status.",
    "http_401": "Check that SCHEDULER_SERVICE_ROLE_KEY is the key that the trigger engine expects.",
    "http_403": "Check that SCHEDULER_SERVICE_ROLE_KEY is the key that the trigger engine expects.",
    "http_404": "Check the path in SCHEDULER_TRIGGER_ENGINE.",
    "http_413": "Lower SCHEDULER_MENTORS_PER_INVOCATION: the trigger engine takes no chunk of this size.",
    "http_429": "Lower SCHEDULER_MAX_CONCURRENCY: the trigger engine wants fewer invocations.",
    "http_5": "See the log of the trigger engine, or of the proxy before it, for what broke.",
    "wrong_shape": "The answer is not what the README says a trigger engine answers.",
    "malformed_answer": "The answer is not HTTP as it should be: see what is before the trigger engine.",
    "oversize_answer": "The answer holds far more than what the README says a trigger engine answers.",
    "foreign_id": "The trigger engine answered about a mentor whom it was not asked about.",
    "mentor_error": "The trigger engine itself reported an error: see its log.",
    "mentor_missing": "The trigger engine left mentors out of an answer for many.",
    "mentor_answered_twice": "The trigger engine answered twice about one mentor, in an answer for many.",
    "sql_": "The code is an SQLSTATE: its meaning is in appendix A of Postgres's manual.",
    "sql_21": "A scenario function chokes on somebody's data; the code is its SQLSTATE.",
    "sql_22": "A scenario function chokes on somebody's data; the code is its SQLSTATE.",
    "sql_23": "A scenario function chokes on somebody's data; the code is its SQLSTATE.",
    "sql_3f": "A schema is missing; run `scenario-scheduler migrate`, or see what your scenarios read.",
    "sql_40": "Transactions got in one another's way: see what else locks these tables.",
    "sql_42501": "The owner of the schema may not read a table; run `scenario-scheduler migrate`.",
    "sql_42883": "A function is missing; run `scenario-scheduler migrate`, or see what your scenarios call.",
    "sql_42p01": "A table is missing; run `scenario-scheduler migrate`, or see what your scenarios read.",
    "sql_p0": "A scenario function raised an error of its own; the code is its SQLSTATE.",
}


def remedy_of(error_class: str) -> str | None:
    """What the operator can do, None for a class that nothing is known about."""
    fitting = [beginning for beginning in _REMEDIES if error_class.startswith(beginning)]
    return _REMEDIES[max(fitting, key=len)] if fitting else None
