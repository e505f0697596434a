"""The URL that `service-url` prints: the administrator's way to the server, and nothing of who that is."""

from __future__ import annotations

import pytest

from engine import service_database_url


@pytest.mark.parametrize(
    ("administrator_url", "expected"),
    [
        ("postgresql://app:X@db.example:5432/name", "postgresql://scheduler_service:pw@db.example:5432/name"),
        ("postgresql://app@/name?host=/run", "postgresql://scheduler_service:pw@/name?host=/run"),
        (
            "postgresql://db.example/name?user=app&password=X&sslmode=require",
            "postgresql://scheduler_service:pw@db.example/name?sslmode=require",
        ),
        (
            "postgresql:///name?passfile=/X&host=a%2Cb&sslrootcert=/r&sslcert=/X&sslkey=/X&sslpassword=X",
            "postgresql://scheduler_service:pw@/name?host=a%2Cb&sslrootcert=/r",
        ),
        ("postgresql:///name?%70assword=X&service=X&role=X", "postgresql://scheduler_service:pw@/name"),
        ("postgresql://postgres.abc:X@pooler/db", "postgresql://scheduler_service.abc:pw@pooler/db"),
        ("postgresql://pooler/db?user=postgres.abc", "postgresql://scheduler_service.abc:pw@pooler/db"),
    ],
)
def test_the_services_url_has_nothing_of_the_administrators_login(
    administrator_url: str, expected: str
) -> None:
    assert service_database_url(administrator_url, "pw") == expected
