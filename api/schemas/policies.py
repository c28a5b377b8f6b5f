"""OpenAPI body and examples of policies."""

from typing import Any

from api.schemas.examples import NOON, build_command_example

TEXT = """rollout: parcel-damage
timezone: Europe/Vienna
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a, ramp-b]
evidence: {unit: case}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}
"""
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}, "example": TEXT},
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "rollout": "parcel-damage",
                    "timezone": "Europe/Vienna",
                    "levers": [{"id": "parcel", "labels": ["damaged", "sound"]}],
                    "sites": ["ramp-a", "ramp-b"],
                    "evidence": {"unit": "case"},
                    "gates": [
                        {
                            "to": "supervised",
                            "require": [{"measure": "agreement", "at_least": "95%"}],
                        }
                    ],
                },
            },
        },
    }
}
"""The body is the policy file itself: YAML or JSON."""

PLANNED: dict[str, Any] = {
    "rollout": "parcel-damage",
    "policy": "5be1…",
    "cells": 2,
    "stages": ["shadow", "supervised", "autonomous"],
    "changes": {
        "outcome": "propose",
        "loosens": ["the gate to supervised: agreement at least 93 %, not 95 %"],
        "required_approvals": ["operator", "operator"],
        "narrowed": [],
        "restarted": [],
        "cleared": [],
        "voided": [],
    },
    "warnings": [],
    "text": "Plan of parcel-damage: 2 cells, shadow → supervised → autonomous\n…",
}
APPLIED = build_command_example(
    "PolicyApplied",
    "ana",
    {"number": 2, "policy": "5be1…"},
    outcome="applied",
    policy=2,
    proposal="",
    required_approvals=[],
    evidence_hash="",
    text="policy 2 of parcel-damage holds",
    warnings=[],
)
IN_FORCE: dict[str, Any] = {
    "rollout": "parcel-damage",
    "number": 1,
    "hash": "5be1…",
    "since": NOON,
    "by": "ana",
    "text": TEXT,
}
