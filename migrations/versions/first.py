"""The tables of this program, as its code has them; its revision is their hash.

Why: nothing was released, so no database needs to be changed from one commit's tables to another's.
Locks: nothing; there is nothing yet.
Back: a database of another commit is made anew.
"""

from alembic import op

from rollout.data.tables.record_tables import TRIGGER_FUNCTION, list_triggers
from rollout.data.tables.tables import compute_schema_hash, metadata

revision = compute_schema_hash()
down_revision = None
oldest_program = revision
branch_labels = None
depends_on = None
forms = {
    "AlarmSubject": "attribute moved share value",
    "AllUnits": "",
    "Approved": "at by evidence_hash groups proposal reason slot",
    "AttemptsBegan": "at by cells numbers releases shares slot versions years",
    "BothArms": "arm outcome",
    "CalendarDataSet": "at by changed holidays program slot time_zones",
    "CasesErased": "at by counts episode keys reason records_digest reports slot tables",
    "CasesPlanted": "at by cases digest file_digest reason slot",
    "Cell": "site window",
    "CheckpointKeyUsed": "at by public_key slot",
    "ClockCorrected": "at by previous_time slot",
    "Condition": "action label lever measure population threshold",
    "CountedOutcomeSource": "source units",
    "CountedSource": "decisions reviewers source",
    "CredentialsReset": "at by credential credentials slot user",
    "DamageCleared": "at by reason slot",
    "EachValue": "attribute value",
    "EmailSet": "at by credentials slot user",
    "EraBegan": "at by era reason slot trigger",
    "FactsConfirmed": "at by evidence_hash groups incidents proposal reason slot",
    "FamiliarityChanged": "agreed at attributes by cells judged slot statuses values versions",
    "FreshFact": "agreed condition kind units",
    "FrozenVouching": "account counted units within",
    "GrantExpired": "at by cell slot stage until version",
    "IdentityLinked": "at by credentials issuer slot user",
    "IncidentAcknowledged": "at by incident note slot",
    "IncidentOpened": (
        "about alarms at by by_later_records cell effect fact guard holds incident kind "
        "reason slot trigger version"
    ),
    "KeyCreated": "at by credentials expires_at prefix slot user",
    "KeyRevoked": "at by credentials prefix slot user",
    "LooserRule": "cells kind others values",
    "NameErased": "at by counts name_hash pseudonym reason records_digest slot tables",
    "Narrowed": (
        "alarms at by cause cell confidence_floor from_stage guard reason restart slot to_stage "
        "version"
    ),
    "OneTimeLinkCreated": "at by credentials expires_at link slot user",
    "OutcomeRule": "better closes high id low missing_at_most unit",
    "PasswordRehashed": "at by credentials slot user",
    "PasswordSet": "at by credentials slot user",
    "PlantedUnits": "",
    "PolicyApplied": (
        "at by cleared confidence_floors former loosens number policy_hash proposal renamed "
        "restarted slot"
    ),
    "ProposalExpired": "at by proposal slot",
    "ProposalHeld": "at by fresh_facts proposal slot",
    "ProposalRaised": (
        "about at attempt by cell cells confidence_floor evidence_hash expires_at gate_hash "
        "incidents kind loosens needs outcome_sources proposal readings records_digest "
        "registered risk_weight slot sources stricter_floors to_stage version vouched"
    ),
    "ProposalRejected": "at by proposal quiet_until reason slot",
    "ProposalVoided": "about alarms at by cause incidents proposal slot",
    "RecordsCounted": "at by digest records slot",
    "RecordsImported": (
        "at by cases cell_cases cells digests files imported_at received_since received_until "
        "slot stated_receipts"
    ),
    "RecordsPurged": "at before by counts digest slot tables",
    "RecoveryCodeUsed": "at by credentials slot user",
    "RegisteredUnits": "own source units",
    "Renewed": "at by cell proposal slot stage until version",
    "ReportSealed": "at by number report sha256 since slot state until",
    "Resumed": "at by proposal slot stop",
    "RoleGranted": "at by credentials group role rollout site slot user",
    "RoleRevoked": "at by credentials group role rollout site slot user",
    "RolloutCreated": "at by salt_hash service_salt_hash slot",
    "SecondFactorAdded": "at by credentials slot user",
    "SecondFactorRemoved": "at by credentials slot user",
    "Stopped": "at by cells drill reason slot stop trigger",
    "StoredAlarm": "against condition over records subject suspensions",
    "StoredReading": "bound condition counts draw_log_e estimate log_e risk",
    "Suspended": "alarms at by cell guard slot version",
    "SuspensionCleared": "alarms at by cell guard slot version",
    "TakenOver": (
        "at by cell confidence_floors grant_ends proposal replaced_version slot stages "
        "to_stage version"
    ),
    "TrainingCutoffSet": "at by slot trained_until version",
    "Trigger": "kind values",
    "UserAdded": "at by credentials service_account slot user",
    "UserDisabled": "at by credentials slot user",
    "UserEnabled": "at by credentials slot user",
    "UserErased": "at by credentials reason slot user",
    "VersionFirstUsed": "at by content slot version",
    "VersionRenamed": "at by content continues slot version",
    "VersionRetired": "at by reason slot version",
    "Widened": "at by cell confidence_floors proposal slot to_stage until version",
    "measure action_change": "",
    "measure agreement": "",
    "measure cost": "",
    "measure drift": "",
    "measure failures": "",
    "measure gain": "",
    "measure harm": "",
    "measure heartbeat": "",
    "measure latency_p95": "",
    "measure missing": "",
    "measure override": "",
    "measure precision": "",
    "measure recall": "",
    "measure unaudited": "",
}  # of ledger entries, with their fields; a later revision names what its program adds


def upgrade() -> None:
    """Make every table with its indexes and triggers."""
    bind = op.get_bind()
    metadata.create_all(bind, checkfirst=False)
    if bind.dialect.name == "postgresql":
        op.execute(TRIGGER_FUNCTION)
    for statement in list_triggers(bind.dialect.name).values():
        op.execute(statement)
