"""The role of the service on PostgreSQL: it does not own the tables, as `doctor` demands."""

from contextlib import closing

from sqlalchemy import make_url

from rollout.data.database.migrations import grant_privileges
from rollout.data.database.session import Database

SERVICE_ROLE = "rollout_kills_service"
PASSWORD = "in tests alone"  # noqa: S105 - of a role that lasts as long as a test's server
CREATE_ROLE = f"""
do $$ begin
  if not exists (select from pg_roles where rolname = '{SERVICE_ROLE}') then
    create role {SERVICE_ROLE} login password '{PASSWORD}';
  end if;
end $$
"""


def create_service_role(copies, url):
    """Return the URLs of the tables' owner and of the service; on SQLite they are the same."""
    if copies.engine == "sqlite":
        return url, url
    copies.do(url, CREATE_ROLE)
    with closing(Database(url)) as database, database.begin_write() as transaction:
        grant_privileges(transaction, SERVICE_ROLE)
    service_url = make_url(url).set(username=SERVICE_ROLE, password=PASSWORD)
    return url, service_url.render_as_string(hide_password=False)
