"""Reads Prometheus's text format, and finds in it what `promtool check metrics` would."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

# A value by its series, as Prometheus writes one: `scheduler_runs_total{verdict="completed"}`.
Series = dict[str, float]

# Units that are not base ones, and words that say the type again.
UNWANTED = re.compile(
    r"_(ms|millis|milliseconds|us|micros|microseconds|ns|nanoseconds|s|sec|secs|min|minutes|h|hours|days|weeks"
    r"|kb|mb|kilobytes|megabytes|bits|percent|counter|gauge|histogram|summary|metric)(_|$)"
)
RESERVED_SUFFIXES = ("_count", "_sum", "_bucket")


def parse(text: str) -> Series:
    """Every sample; asserts that there is nothing to complain of."""
    assert list(complaints(text)) == []
    return {
        _series(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def types(text: str) -> dict[str, str]:
    """What each metric is, by its name in the TYPE line."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE))


def complaints(text: str) -> Iterator[str]:
    """What is wrong with this exposition; nothing if all is well."""
    if not text.endswith("\n"):
        yield "the last line has no end"
    described = re.findall(r"^# HELP (\S+) (.*)$", text, flags=re.MULTILINE)
    typed = re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE)
    if [name for name, _ in described] != [name for name, _ in typed]:
        yield "HELP and TYPE don't go in pairs"
    for name in {name for name, _ in typed}:
        if [each for each, _ in typed].count(name) > 1:
            yield f"{name} is there twice"
    yield from (f"{name} has an empty HELP" for name, help_text in described if not help_text.strip())
    for name, kind in typed:
        yield from _complaints_of_name(name, kind)
    samples = [
        _series(sample.name, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    yield from (f"{each} is there twice" for each in set(samples) if samples.count(each) > 1)
    for line in filter(None, text.splitlines()):
        name = re.split(r"[ {]", line.removeprefix("# HELP ").removeprefix("# TYPE "))[0]
        if not any(name == each or _is_part(name, each, kind) for each, kind in typed):
            yield f"{name} has no TYPE"
    for family in text_string_to_metric_families(text):
        if family.type == "histogram":
            yield from _complaints_of_histogram(family)


def _complaints_of_name(name: str, kind: str) -> Iterator[str]:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        yield f"{name} is not in snake case"
    if name.endswith("_total") != (kind == "counter"):
        yield f"{name} is a {kind}: counters, and they alone, end in _total"
    if name.endswith(RESERVED_SUFFIXES):
        yield f"{name} ends as a part of a histogram does"
    if UNWANTED.search(name):
        yield f"{name} has no base unit, or says its type"
    if kind == "untyped":
        yield f"{name} has no type"


def _complaints_of_histogram(family: object) -> Iterator[str]:
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]
    [total] = [sample.value for sample in family.samples if sample.name.endswith("_count")]
    bounds, counts = [bound for bound, _ in buckets], [count for _, count in buckets]
    if bounds != sorted(set(bounds)) or bounds[-1] != float("inf"):
        yield f"{family.name}: its bounds don't ascend to infinity"
    if counts != sorted(counts) or counts[-1] != total:
        yield f"{family.name}: its buckets don't add up"


def _is_part(name: str, of: str, kind: str) -> bool:
    return kind == "histogram" and name in [of + suffix for suffix in RESERVED_SUFFIXES]


def _series(name: str, labels: dict[str, str]) -> str:
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name
