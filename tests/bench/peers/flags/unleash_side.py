from __future__ import annotations

import tempfile
from collections.abc import Iterator

from UnleashClient import UnleashClient
from UnleashClient.cache import FileCache

from tests.bench.peers.flags.asked import Document, PassOver, serve

_OPERATORS = {
    "in": "IN",
    "starts-with": "STR_STARTS_WITH",
    "at-least": "NUM_GTE",
    "before": "DATE_BEFORE",
    # It has no «at least»: not below.
    "version-at-least": "SEMVER_LT",
}


def prepare(flags: list[Document]) -> PassOver:
    features = [
        {
            "name": flag["key"],
            "enabled": flag["live"],
            "type": "release",
            "strategies": [_strategy(r) for r in flag["rules"]],
        }
        for flag in flags
    ]
    cache = FileCache("bench", directory=tempfile.mkdtemp())
    cache.bootstrap_from_dict({"version": 2, "features": features})
    client = UnleashClient("http://127.0.0.1:9", "bench", disable_metrics=True, disable_registration=True, cache=cache)
    client.initialize_client(fetch_toggles=False)

    def pass_over(users: list[Document]) -> Iterator[bool]:
        for user in users:
            context = {"userId": user["id"], "properties": {k: str(v) for k, v in user.items() if k != "id"}}
            for flag in flags:
                yield client.is_enabled(flag["key"], context)

    return pass_over


def _strategy(rule: Document) -> Document:
    constraints = [_constraint(each) for each in rule["when"]]
    if "percent" not in rule:
        return {"name": "default", "parameters": {}, "constraints": constraints}
    parameters = {"rollout": str(rule["percent"]), "stickiness": "userId", "groupId": rule["seed"]}
    return {"name": "flexibleRollout", "parameters": parameters, "constraints": constraints}


def _constraint(condition: Document) -> Document:
    operator, values = _OPERATORS[condition["operator"]], condition["values"]
    found = {
        "contextName": {"id": "userId"}.get(condition["attribute"], condition["attribute"]),
        "operator": operator,
        "inverted": operator == "SEMVER_LT",
    }
    if operator in {"IN", "STR_STARTS_WITH"}:
        return {**found, "values": [str(value) for value in values]}
    return {**found, "value": str(values[0])}


serve(prepare)
