"""config/deploy/kubernetes: each manifest is of its schema, and names what exists."""

import re
import shlex
import stat
import subprocess

import kubernetes_validate
import pytest
import yaml

from api.health.routes import router
from api.serve import SHUTDOWN_SECONDS, TRANSACTION_SECONDS
from rollout.engine.ledger.ledger import CheckpointError
from rollout.features.access.keys import SecretKey, SecretKeyError
from rollout.features.ledger.ledger_reader import describe_weakness
from rollout.live.checkpoint_keys import CheckpointSigner, open_checkpoint_targets
from rollout.settings import PREFIX, Settings, read_settings
from rollout.worker.jobs import STOP_GRACE
from tests.deploy.files import FOLDER, list_first_calls, read_text
from tests.docs.pages import Typed, fault_of, text_of
from tests.features.houses import chance

FILES = sorted((FOLDER / "kubernetes").iterdir())
SETTINGS = {PREFIX + name.upper() for name in Settings.__dataclass_fields__}
RELEASES = ("1.30", "1.37")


def load_documents():
    return [document for file in FILES for document in yaml.safe_load_all(file.read_text("utf-8"))]


def load_one(kind, name="rollout"):
    """Return the manifest of a kind and name."""
    (document,) = (
        each
        for each in load_documents()
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return document


def load_pods():
    """Return the pod template of each workload by its name."""
    pods = {}
    for document in load_documents():
        spec = document.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            pods[document["metadata"]["name"]] = template
    assert set(pods) == {"rollout", "rollout-upgrade", "rollout-backup"}
    return pods


def load_containers():
    specs = [pod["spec"] for pod in load_pods().values()]
    return [
        each for spec in specs for each in (*spec.get("initContainers", ()), *spec["containers"])
    ]


def list_variables(container):
    """Return the environment variables of a container, with those of ConfigMaps."""
    values = {each["name"]: each.get("value", "") for each in container.get("env", ())}
    for source in container.get("envFrom", ()):
        values |= load_one("ConfigMap", source["configMapRef"]["name"])["data"]
    return values


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_manifest_is_of_its_schema(file, release):
    for document in yaml.safe_load_all(file.read_text("utf-8")):
        kubernetes_validate.validate(document, release, strict=True)


def test_a_wrong_manifest_would_be_found():
    document = load_one("PodDisruptionBudget")
    document["spec"]["minAvailabel"] = document["spec"].pop("minAvailable")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, RELEASES[-1], strict=True)


def test_each_variable_is_a_setting_and_the_service_accepts_them_together():
    for container in load_containers():
        assert set(list_variables(container)) <= SETTINGS, container["name"]
    (serving,) = load_pods()["rollout"]["spec"]["containers"]
    settings = read_settings(list_variables(serving))
    assert settings.oidc_issuer == "", "passwords only, until somebody names a provider"
    mounts = {each["mountPath"]: each["name"] for each in serving["volumeMounts"]}
    (claim,) = load_one("StatefulSet")["spec"]["volumeClaimTemplates"]
    for lasting in (settings.latch_folder, settings.checkpoint_file):
        assert mounts[lasting.rpartition("/")[0]] == claim["metadata"]["name"]
    for key_file in (settings.secret_key_file, settings.checkpoint_key_file):
        assert mounts[key_file.rpartition("/")[0]] == "keys"


def test_each_key_of_the_secret_is_used_and_there_and_no_file_holds_one():
    secret = load_one("Secret")["stringData"]
    references = re.findall(r"{(?:name: rollout, )?key: ([\w.-]+)(?:}|, path)", read_all())
    assert set(references) == set(secret)
    for name, value in secret.items():
        assert re.search(r":PASSWORD@|^$|DIGITS$", value), name


def read_all():
    return "\n".join(read_text(f"kubernetes/{file.name}") for file in FILES)


def test_each_command_exists():
    calls = [each["args"] for each in load_containers() if "command" not in each]
    comments = re.findall(r"-- (rollout .*)$", read_all(), re.MULTILINE)
    calls += [shlex.split(line.removeprefix("rollout ")) for line in comments]
    calls += list_first_calls()
    assert len(comments) == len(list_first_calls()) == 3
    assert {call[1] for call in calls if call[0] == "db"} == {"upgrade", "grant"}
    assert [fault for call in calls if (fault := fault_of(call))] == []
    assert fault_of(Typed("rollout db upgraed", served=False).words)
    programs = [each["command"][0] for each in load_containers() if "command" in each]
    assert set(programs) == {"sh", "back-up.sh"}


def test_no_container_has_a_right_that_it_needs_not():
    for name, pod in load_pods().items():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 10001, "the Containerfile's user"
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in load_containers():
        assert container["image"] == "rollout"
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_replicas_are_two_probed_by_paths_that_exist_and_one_stays():
    stateful_set, pod = load_one("StatefulSet")["spec"], load_pods()["rollout"]
    assert stateful_set["replicas"] == 2
    (serving,) = pod["spec"]["containers"]
    probes = {
        name: serving[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {each["path"] for each in probes.values()} <= {route.path for route in router.routes}
    assert probes["readiness"]["path"] == "/health/ready"
    assert probes["liveness"]["path"] == "/health/live", (
        "an outage of the database restarts nothing"
    )
    (port,) = serving["ports"]
    assert str(port["containerPort"]) == serving["args"][-1]
    assert {each["port"] for each in probes.values()} == {port["name"]}
    needed = SHUTDOWN_SECONDS + STOP_GRACE + TRANSACTION_SECONDS
    assert needed < pod["spec"]["terminationGracePeriodSeconds"]
    budget = load_one("PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == 1
    services = [load_one("Service"), load_one("Service", stateful_set["serviceName"])]
    selectors = [each["spec"]["selector"] for each in services]
    selectors += [each["selector"]["matchLabels"] for each in (stateful_set, budget)]
    selectors.append(load_one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    assert all(each == pod["metadata"]["labels"] for each in selectors)
    assert services[1]["spec"]["publishNotReadyAddresses"] is True


def test_each_mount_is_of_a_volume_of_its_pod():
    claims = {
        each["metadata"]["name"] for each in load_documents() if each["kind"].endswith("Claim")
    }
    for name, pod in load_pods().items():
        volumes = {each["name"]: each for each in pod["spec"].get("volumes", ())}
        templates = load_one("StatefulSet")["spec"]["volumeClaimTemplates"]
        own = {each["metadata"]["name"] for each in templates if name == "rollout"}
        spec = pod["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            mounted = {each["name"] for each in container.get("volumeMounts", ())}
            assert mounted <= {*volumes, *own}, container["name"]
        used = {
            each["persistentVolumeClaim"]["claimName"]
            for each in volumes.values()
            if "persistentVolumeClaim" in each
        }
        assert used <= claims


def test_the_service_uses_the_keys_of_a_secret_that_its_group_can_read(tmp_path):
    """A mounted Secret has links to files of root that the pod's group reads: both keys refuse."""
    secret, keys = tmp_path / "secret", tmp_path / "keys"
    (secret / "..data").mkdir(parents=True)
    keys.mkdir()
    (volume,) = (
        each for each in load_pods()["rollout"]["spec"]["volumes"] if each["name"] == "secret"
    )
    for number, item in enumerate(volume["secret"]["items"]):
        file = secret / "..data" / item["path"]
        file.write_text(f"{number}a" * 32)
        file.chmod(0o440)
        (secret / item["path"]).symlink_to(file)
    with pytest.raises(CheckpointError, match="others can read"):
        CheckpointSigner(secret / "rollout-checkpoint.key")
    with pytest.raises(SecretKeyError, match="others may read"):
        SecretKey(str(secret / "rollout-secret.key"), chance).encrypt(b"secret", b"factor")
    copying = load_pods()["rollout"]["spec"]["initContainers"][0]["command"]
    places = {"/secret/": f"{secret}/", "/var/lib/rollout/keys/": f"{keys}/"}
    line = copying[2]
    for path, own in places.items():
        line = line.replace(path, own)
    subprocess.run([*copying[:2], line], check=True)
    assert {stat.S_IMODE(file.stat().st_mode) for file in keys.iterdir()} == {0o600}
    settings = read_settings(
        {
            "ROLLOUT_SECRET_KEY_FILE": str(keys / "rollout-secret.key"),
            "ROLLOUT_CHECKPOINT_KEY_FILE": str(keys / "rollout-checkpoint.key"),
            "ROLLOUT_CHECKPOINT_FILE": str(tmp_path / "heads.jsonl"),
        }
    )
    key = SecretKey(settings.secret_key_file, chance)
    assert key.decrypt(key.encrypt(b"secret", b"factor"), b"factor") == b"secret"
    targets = open_checkpoint_targets(settings, creates_key=True)
    assert targets.require_signer()
    assert describe_weakness(targets) == ""
    assert (keys / "rollout-checkpoint.key").read_text() == "1a" * 32, "given, not made anew"


def test_the_page_applies_each_file_in_order():
    page = text_of("docs/operations.md")
    applied = re.findall(r"kubectl apply -f config/deploy/kubernetes/([\w-]+)\.yaml", page)
    assert sorted(applied) == [file.stem for file in FILES]
    assert applied.index("secret") < applied.index("upgrade") < applied.index("service")
