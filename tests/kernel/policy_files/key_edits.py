"""An edit of each key of a policy, and what becomes of it: the table of `test_every_key`.

An edit maps places to new values; None removes. `BEFORE` changes the policy of `every_key.yaml`
first. Keys without an edit here fail the test.
"""

FAMILIAR = {
    "attributes": ["form", {"of": "light", "cuts": ["0", "20", "50"]}],
    "at_least": "20",
    "line": "90%",
}
NO_GAIN = {"gates[2].require[0]": None, "guards[4]": None, "outcomes": None}
GATES = range(3)
LOSS = {"id": "loss", "from": "-9", "to": "9", "closes": "1d"}
BROOK = {"sites[0].id": "brook", "freezes[0].sites": ["brook", "lake"]}
DAYLIGHT = {"windows[0].id": "daylight"}
MARGIN = {"outcomes[0].id": "margin", "gates[2].require[0].of": "margin", "guards[4].of": "margin"}

BEFORE = {
    "evidence": {"evidence.sources": None},
    "evidence.confidence_floors": {
        "evidence.confidence_floor": None,
        "evidence.confidence_floors": ["70%"],
    },
    "evidence.verdicts": {"evidence.verdicts": "3", "evidence.second_verdict": None},
    "evidence.sources": {"evidence.sources.vouched": None},
    "gates[]": {"gates[2]": None},
    "gates[].to": {"gates[2].require[0]": None, "gates[2].risk": "0.5%"},
    "gates[].sites": {f"gates[{n}].sites": ["creek"] for n in GATES},
    "gates[].windows": {f"gates[{n}].windows": ["day"] for n in GATES},
    "levers[].actions": {"levers[0].costs[2]": None, "levers[0].costs[1]": {"cost": "1"}},
    "guards[].holds": {"guards[5]": {"measure": "harm", "at_most": "0"}},
    "guards[].of": {"outcomes[1]": LOSS, "gates[2].require[0]": None},
    "waves.stage": {"waves.stage": "trial"},
    **dict.fromkeys(
        (
            "evidence.familiar",
            "evidence.familiar.attributes[]",
            "evidence.familiar.attributes[].of",
            "evidence.familiar.attributes[].cuts",
            "evidence.familiar.at_least",
            "evidence.familiar.line",
        ),
        NO_GAIN | {"evidence.familiar": FAMILIAR},
    ),
}

# Needs approvals, and the way back needs none.
LOOSENS = {
    "sites[]": {"sites[3]": {"id": "hill", "wave": "3"}},
    "levers[].labels": {"levers[1].labels": ["a", "b", "c", "d"]},
    "levers[].overlap": {"levers[1].overlap": "70%"},
    "levers[].number.from": {"levers[2].number.from": "0"},
    "levers[].number.to": {"levers[2].number.to": "600"},
    "levers[].number.tolerance": {"levers[2].number.tolerance": "6%"},
    "levers[].costs[]": {"levers[0].costs[1]": None},
    "levers[].costs[].under": {"levers[2].costs[0].under": "30%"},
    "levers[].costs[].over": {"levers[2].costs[1].over": "30%"},
    "levers[].costs[].off": {"levers[2].costs[2].off": "15%"},
    "levers[].answer_within": {"levers[0].answer_within": "2m"},
    "sites[].lease": {"sites[0].lease": "2m"},
    "stages[].blind": {"stages[0].blind": "40%"},
    "stages[].audit": {"stages[2].audit": "9%"},
    "stages[].share": {"stages[1].share": "30%"},
    "stages[].lasts": {"stages[1].lasts": "90d"},
    "evidence.missing_at_most": {"evidence.missing_at_most": "5%"},
    "evidence.outside": {"evidence.outside": "blind"},
    "evidence.sources.vouched[]": {"evidence.sources.vouched[1]": {"account": "b", "within": "1h"}},
    "evidence.sources.vouched[].within": {"evidence.sources.vouched[0].within": "2h"},
    "versions[].sample": {"versions[0].sample": "20%"},
    "evidence.sources.accounts[]": {
        "evidence.sources.accounts[1]": {"account": "b", "reviewers": ["bo"]}
    },
    "evidence.sources.accounts[].reviewers": {
        "evidence.sources.accounts[0].reviewers": ["ana", "bo"]
    },
    "evidence.sources.outcomes": {"evidence.sources.outcomes": ["till", "x"]},
    "evidence.sources.cases": {"evidence.sources.cases": ["camera", "x"]},
    "evidence.familiar": {"evidence.familiar": None},
    "evidence.familiar.attributes[]": {"evidence.familiar.attributes[1]": None},
    "evidence.familiar.line": {"evidence.familiar.line": "80%"},
    "retention": {"retention.cases": "1d"},
    "retention.cases": {"retention.cases": "364d"},
    "expect": {"expect.units_per_day": "200"},
    "expect.units_per_day": {"expect.units_per_day": "101"},
    "gates[]": {
        "gates[2]": {
            "to": "autonomous",
            "require": [{"measure": "agreement", "at_least": "95%"}],
        }
    },
    "gates[].require[]": {"gates[0].require[0]": None},
    "gates[].require[].at_least": {"gates[0].require[0].at_least": "94%"},
    "gates[].require[].at_most": {"gates[0].require[3].at_most": "0.6"},
    "gates[].risk": {"gates[0].risk": "3%"},
    "gates[].minimum": {"gates[0].minimum": None},
    "gates[].minimum.units": {"gates[0].minimum.units": "199"},
    "gates[].minimum.days": {"gates[0].minimum.days": "9"},
    "gates[].minimum.reviewers": {"gates[0].minimum.reviewers": "1"},
    "guards[]": {"guards[3]": None},
    "guards[].at_least": {"guards[0].at_least": "79%"},
    "guards[].at_most": {"guards[1].at_most": "3h"},
    "guards[].over": {"guards[3].over": "7d"},
    "guards[].false_alarm_every": {"guards[0].false_alarm_every": "6000"},
    "guards[].holds": {"guards[5].holds": "site"},
    "guards[].reach": {"guards[0].reach": "cell"},
    "limits[].never_above": {"limits[0].never_above": "trial"},
    "versions[]": {"versions[1]": {"id": "v9", "content": "c" * 64}},
    "waves": {"waves": None},
    "waves.hold": {"waves.hold": "6d"},
    "waves.share": {"waves.share": "80%"},
    "waves.at_once": {"waves.at_once": "3"},
    "waves.settle": {"waves.settle": "2d"},
    "freezes[]": {"freezes": None},
    "takeover": {"takeover": "supervised"},
    "outcomes[].missing_at_most": {"outcomes[0].missing_at_most": "3%"},
    "lease": {"lease": "2m"},
    "tick": {"tick": "30m"},
    "observe": {"observe": "false"},
    "import[].exposure": {"import[0].exposure": "blind"},
    "import[].columns": {"import[0].columns": {"exposure": {"value": "blind"}}},
}

# Needs approvals in both directions: which of them is looser can't be told, or each one is.
LOOSENS_EITHER_WAY = {
    "limits[]": {"limits": None},  # the way back ends what the next wave waits for
    "limits[].ends": {"limits[0].ends": "2028-01-31"},
    "waves.stage": {"waves.stage": "supervised"},
    "timezone": {"timezone": "Asia/Tokyo"},
    "country": {"country": "DE"},
    "levers[]": {"levers[3]": {"id": "siren-2", "labels": ["on", "off"]}},
    "levers[].number": {
        "levers[2].number": None,
        "levers[2].costs": None,
        "levers[2].labels": ["low", "high"],
    },
    "levers[].number.in": {"levers[2].number.in": "USD"},
    "levers[].actions": {"levers[0].actions.deer": "siren"},
    "levers[].id": {"levers[1].id": "brands"},
    "levers[].many": {"levers[1].many": "false", "levers[1].overlap": None},
    "levers[].costs[].cost": {"levers[0].costs[0].cost": "19"},
    "levers[].costs[].did": {"levers[0].costs[0].did": "deer"},
    "levers[].costs[].right": {"levers[0].costs[0].right": "deer"},
    "levers[].unanswered": {"levers[0].unanswered": "none"},
    "sites[].id": BROOK,
    "sites[].was": BROOK | {"sites[0].was": "creek"},
    "sites[].place": {"sites[0].place": ["48", "13"]},
    "sites[].timezone": {"sites[0].timezone": "Asia/Tokyo"},
    "sites[].country": {"sites[0].country": "DE"},
    "sites[].wave": {"sites[0].wave": "2"},
    "sites[].open": {"sites[1].open": "Mo-Fr 08:00-19:00"},
    "windows[]": {
        "windows[1]": {"id": "dusk", "hours": "20:00-21:00"},
        "windows[2]": {"id": "night"},
    },
    "windows[].id": DAYLIGHT,
    "windows[].was": DAYLIGHT | {"windows[0].was": "day"},
    "windows[].hours": {"windows[0].hours": "08:00-21:00"},
    "windows[].when": {"windows[0].when.camera": ["old", "new"]},
    "stages[]": {
        "gates[2].require[0]": None,
        "guards[4]": None,
        "gates[1]": None,
        "stages[1]": None,
    },
    "stages[].id": {"stages[1].id": "canary", "gates[1].to": "canary"},
    "evidence": {"evidence": {"unit": "case"}},
    "evidence.grace": {"evidence.grace": "2d"},
    "evidence.releases": {"evidence.releases": "2"},
    "evidence.unit": {"evidence.unit": "case", "evidence.episode_span": None},
    "evidence.episode_span": {"evidence.episode_span": "5m"},
    "evidence.verdicts": {"evidence.verdicts": "1"},
    "evidence.confidence_floor": {"evidence.confidence_floor": "60%"},
    "evidence.confidence_floors": {"evidence.confidence_floors": ["60%"]},
    "evidence.familiar.at_least": {"evidence.familiar.at_least": "10"},
    "evidence.sources": {"evidence.sources": None},
    "evidence.sources.accounts[].account": {"evidence.sources.accounts[0].account": "b"},
    "evidence.sources.vouched[].account": {"evidence.sources.vouched[0].account": "b"},
    "evidence.familiar.attributes[].of": {"evidence.familiar.attributes[1].of": "rain"},
    "evidence.familiar.attributes[].cuts": {"evidence.familiar.attributes[1].cuts": ["0", "50"]},
    "gates[].sites": {"gates[0].sites": ["creek", "lake"]},
    "gates[].windows": {"gates[0].windows": ["day", "night"]},
    "gates[].to": {"gates[1].to": "autonomous", "gates[2].to": "trial"},
    "gates[].require[].measure": {"gates[0].require[1].measure": "precision"},
    "gates[].require[].label": {"gates[0].require[1].label": "deer"},
    "gates[].require[].lever": {
        "gates[0].require[1].lever": "logos",
        "gates[0].require[1].label": "a",
    },
    "gates[].require[].of": {"gates[0].require[1].of": "planted"},
    "gates[].require[].slice": {"gates[0].require[2].slice": "light"},
    "gates[].approvals": {"gates[0].approvals": ["operator", "operator"]},
    "guards[].sites": {"guards[0].sites": ["lake"]},
    "guards[].measure": {"guards[5]": {"measure": "latency_p95", "at_most": "20s"}},
    "guards[].label": {"guards[3].label": "bite"},
    "guards[].lever": {"guards[6].lever": "logos", "guards[6].label": "a"},
    "guards[].action": {"guards[2].action": "deer"},
    "guards[].of": {"guards[4].of": "loss"},
    "guards[].slice": {"guards[5].slice": "light"},
    "guards[].then": {"guards[0].then": "report"},
    "limits[].sites": {"limits[0].sites": ["pond"]},
    "limits[].windows": {"limits[0].windows": ["day"]},
    "versions[].id": {"versions[0].id": "v9"},
    "versions[].content": {"versions[0].content": "b" * 64},
    "freezes[].sites": {"freezes[0].sites": ["pond"]},
    "freezes[].hours": {"freezes[0].hours": "Dec 24"},
    "outcomes[].id": MARGIN,
    "outcomes[].from": {"outcomes[0].from": "-30"},
    "outcomes[].to": {"outcomes[0].to": "70"},
    "outcomes[].in": {"outcomes[0].in": "USD"},
    "outcomes[].better": {"outcomes[0].better": "less"},
    "outcomes[].closes": {"outcomes[0].closes": "15d"},
}

# The reader refuses them.
REFUSED = {
    "gates[].require[].action": {"gates[0].require[0].action": "siren"},
}

DISPLAY_ALONE = "shown with every proposal, and decides nothing"
PLAN_ALONE = "read by plan alone"
REPORT_ALONE = "decides who reads which report when, and nothing about scope"
IMPORTER = "how a file is read; whoever imports it vouches for it, and the evidence names its hash"

# Loosens nothing, for the reason given.
NEUTRAL = {
    "rollout": ({"rollout": "other"}, "another name is another rollout, with a ledger of its own"),
    "charter": ({"charter": None}, DISPLAY_ALONE),
    "charter.objective": ({"charter.objective": "Count."}, DISPLAY_ALONE),
    "charter.affected": ({"charter.affected": ["hunters"]}, DISPLAY_ALONE),
    "charter.if_it_works_very_well": ({"charter.if_it_works_very_well": "x"}, DISPLAY_ALONE),
    "charter.worst_case": ({"charter.worst_case": "x"}, DISPLAY_ALONE),
    "charter.feedback": (
        {"charter.feedback": None},
        "it asks for a blind share, and a smaller blind share loosens by itself",
    ),
    "charter.cost_in": ({"charter.cost_in": "EUR"}, "names the unit; costs and lines stay"),
    "freezes[].reason": ({"freezes[0].reason": "fair"}, "for display"),
    "evidence.second_verdict": (
        {"evidence.second_verdict": "10%"},
        "second decisions show how far humans agree; gates count the first",
    ),
    "outcomes[]": ({"outcomes[1]": LOSS}, "counts once a gate or guard names it"),
    "reports[]": ({"reports": None}, REPORT_ALONE),
    "reports[].name": ({"reports[0].name": "x"}, REPORT_ALONE),
    "reports[].every": ({"reports[0].every": "week"}, REPORT_ALONE),
    "reports[].at": ({"reports[0].at": "08:00"}, REPORT_ALONE),
    "reports[].view": ({"reports[0].view": "auditor"}, REPORT_ALONE),
    "reports[].to": ({"reports[0].to": []}, REPORT_ALONE),
    "slices": ({"slices": ["light"]}, "for reports; gates and guards name their own"),
    "expect.labels": ({"expect.labels": {"alarm/bear": "2%"}}, PLAN_ALONE),
    "expect.agreement": ({"expect.agreement": "98%"}, PLAN_ALONE),
    "expect.cost": ({"expect.cost": "0.03"}, PLAN_ALONE),
    "import[]": ({"import": None}, IMPORTER),
    "import[].records": ({"import[0].records": "cases", "import[0].exposure": None}, IMPORTER),
    "import[].encoding": ({"import[0].encoding": "latin-1"}, IMPORTER),
    "import[].delimiter": ({"import[0].delimiter": ","}, IMPORTER),
    "import[].decimal": ({"import[0].decimal": "."}, IMPORTER),
    "import[].date_format": ({"import[0].date_format": ["month-first"]}, IMPORTER),
    "import[].percent": ({"import[0].percent": "false"}, IMPORTER),
    "import[].unsure": ({"import[0].unsure": ["x"]}, IMPORTER),
}

# Neutral keys that `plan` prints; the others are named by the policy's own file alone.
PRINTED_BY_PLAN = {
    "rollout",
    "charter",
    "charter.objective",
    "outcomes[]",
    "expect.labels",
    "expect.agreement",
    "expect.cost",
}
