from __future__ import annotations

from collections.abc import Iterator

from growthbook import GrowthBook

from tests.bench.peers.flags.asked import Document, PassOver, serve

_OPERATORS = {"in": "$in", "at-least": "$gte", "before": "$lt", "version-at-least": "$vgte", "starts-with": "$regex"}


def prepare(flags: list[Document]) -> PassOver:
    client = GrowthBook(
        features={
            flag["key"]: {
                "defaultValue": False,
                "rules": [_rule(each) for each in flag["rules"]] if flag["live"] else [],
            }
            for flag in flags
        }
    )

    def pass_over(users: list[Document]) -> Iterator[bool]:
        for user in users:
            client.set_attributes(user)
            for flag in flags:
                yield client.is_on(flag["key"])

    return pass_over


def _rule(rule: Document) -> Document:
    found: Document = {"force": True}
    if rule["when"]:
        found["condition"] = {"$and": [_condition(each) for each in rule["when"]]}
    if "percent" in rule:
        found |= {"coverage": rule["percent"] / 100, "hashAttribute": "id", "seed": rule["seed"], "hashVersion": 2}
    return found


def _condition(condition: Document) -> Document:
    operator, values = _OPERATORS[condition["operator"]], condition["values"]
    wanted = {"$in": values, "$regex": f"^{values[0]}"}.get(operator, values[0])
    return {condition["attribute"]: {operator: wanted}}


serve(prepare)
