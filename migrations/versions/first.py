"""The tables of this program, as its code has them; its revision is their hash.

Why: nothing was released, so no database needs to be changed from one commit's tables to another's.
Locks: nothing; there is nothing yet.
Back: a database of another commit is made anew.
"""

from alembic import op

from rollout.data.tables.columns import TRIGGER_FUNCTION, list_triggers
from rollout.data.tables.schema_hash import compute_schema_hash
from rollout.data.tables.tables import metadata

revision = compute_schema_hash()
down_revision = None
oldest_program = revision
branch_labels = None
depends_on = None
kinds = [
    "Approved",
    "AttemptsBegan",
    "CalendarDataSet",
    "CasesErased",
    "CasesPlanted",
    "CheckpointKeyUsed",
    "ClockCorrected",
    "CredentialsReset",
    "DamageCleared",
    "EmailSet",
    "EraBegan",
    "FactsConfirmed",
    "FamiliarityChanged",
    "GrantExpired",
    "IdentityLinked",
    "IncidentAcknowledged",
    "IncidentOpened",
    "KeyCreated",
    "KeyRevoked",
    "NameErased",
    "Narrowed",
    "OneTimeLinkCreated",
    "PasswordRehashed",
    "PasswordSet",
    "PolicyApplied",
    "ProposalExpired",
    "ProposalHeld",
    "ProposalRaised",
    "ProposalRejected",
    "ProposalVoided",
    "RecordsCounted",
    "RecordsImported",
    "RecordsPurged",
    "RecoveryCodeUsed",
    "Renewed",
    "ReportSealed",
    "Resumed",
    "RoleGranted",
    "RoleRevoked",
    "RolloutCreated",
    "SecondFactorAdded",
    "SecondFactorRemoved",
    "Stopped",
    "Suspended",
    "SuspensionCleared",
    "TakenOver",
    "TrainingCutoffSet",
    "UserAdded",
    "UserDisabled",
    "UserEnabled",
    "UserErased",
    "VersionFirstUsed",
    "VersionRenamed",
    "VersionRetired",
    "Widened",
]  # of ledger entries; a later revision names those that its program adds


def upgrade() -> None:
    """Make every table with its indexes and triggers."""
    bind = op.get_bind()
    metadata.create_all(bind, checkfirst=False)
    if bind.dialect.name == "postgresql":
        op.execute(TRIGGER_FUNCTION)
    for statement in list_triggers(bind.dialect.name).values():
        op.execute(statement)
