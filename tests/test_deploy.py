"""What `deploy/` needs is there: the wheel stage in a clean folder, equal hardening, no secrets in git."""

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from sonant.errors import ConfigError
from sonant.server.cluster import CLUSTER
from sonant.server.options import from_words, options_on

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
IMAGES = sorted(DEPLOY.glob("Dockerfile.*"))


def is_sent(name):
    """Whether `.dockerignore` lets this path of the tree into the build; the last rule that fits decides."""
    sent = True
    for rule in (ROOT / ".dockerignore").read_text().split():
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = name.split("/")
        starts = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        candidates = [*starts, *parts] if "**/" in rule else starts
        if any(fnmatch.fnmatchcase(one, pattern) for one in candidates):
            sent = rule.startswith("!")
    return sent


def copied(dockerfile):
    """What the first stage copies from the tree into its working folder."""
    stage = dockerfile.read_text().split("\nFROM ")[1]
    lines = [shlex.split(line) for line in stage.splitlines() if line.startswith("COPY ")]
    return [source for _, *sources, _ in lines for source in sources]


def test_there_are_two_images():
    assert [path.name for path in IMAGES] == ["Dockerfile.cpu", "Dockerfile.cuda"]


@pytest.mark.parametrize("dockerfile", IMAGES, ids=lambda path: path.name)
def test_the_wheel_is_built_from_what_the_image_copies(dockerfile, tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in sonant[dev]")
    tree = tmp_path / "src"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = copied(dockerfile)
    for name in listed.stdout.split("\n"):
        if any(name == one or name.startswith(f"{one}/") for one in wanted) and is_sent(name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    for name in wanted:
        assert (tree / name).exists(), f"{name} is copied by {dockerfile.name} and kept out by .dockerignore"
    code = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    environment = {**os.environ, "SONANT_BUILD_KERNELS": "0"}
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-2000:]
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as archive:
        names = set(archive.namelist())
    tracked = [name for name in listed.stdout.split() if name.startswith("src/sonant/")]
    assert {name.removeprefix("src/") for name in tracked} <= names


def test_what_is_not_named_stays_out_of_the_build():
    for name in ("deploy/.env", ".git/config", "tests/toy.py", "out/a.wav", "src/sonant/__pycache__/a.pyc"):
        assert not is_sent(name), name


def test_both_services_are_hardened_alike():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    cpu, cuda = services["sonant"], services["sonant-cuda"]
    differing = {key for key in cpu.keys() | cuda.keys() if cpu.get(key) != cuda.get(key)}
    assert differing == {"build", "image", "command", "profiles", "deploy"}
    assert cpu["read_only"] is True
    assert cpu["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in cpu["security_opt"]
    assert {"pids_limit", "mem_limit", "ulimits", "tmpfs"} <= cpu.keys()
    assert all(port.startswith("127.0.0.1:") for port in cpu["ports"])


@pytest.mark.parametrize("name", ["deploy/.env", "deploy/keys.txt"])
def test_secrets_are_kept_out_of_git(name):
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0


def test_the_images_and_the_unit_keep_everything_that_is_written_in_one_place():
    for dockerfile in IMAGES:
        text = dockerfile.read_text()
        for variable in ("SONANT_MODELS", "SONANT_VOICES", "SONANT_CACHE", "HF_HOME"):
            assert f"{variable}=/data/" in text
        assert "USER sonant" in text
    unit = (DEPLOY / "sonant.service").read_text()
    for line in ("DynamicUser=yes", "LimitNOFILE=", "TasksMax=", "MemoryMax=", "NoNewPrivileges=yes"):
        assert line in unit


def verified(folder, text):
    """What systemd says of a unit whose program is there."""
    unit = folder / "sonant.service"
    unit.write_text(text.replace("/opt/sonant/bin/sonant", "/bin/true"))
    made = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    return made.returncode, made.stdout + made.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_every_line_of_the_unit(tmp_path):
    unit = (DEPLOY / "sonant.service").read_text()
    assert verified(tmp_path, unit) == (0, "")
    for right, wrong in (("NoNewPrivileges", "NoNewPrivilege"), ("90%", "lots")):
        assert f"'{wrong}'" in verified(tmp_path, unit.replace(right, wrong))[1]


def test_the_unit_says_where_everything_is_kept_as_the_images_do():
    unit = (DEPLOY / "sonant.service").read_text()
    for variable in ("SONANT_MODELS", "SONANT_VOICES", "SONANT_CACHE", "HF_HOME"):
        assert f"{variable}=/var/" in unit


KUBERAY = [part for part in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text()) if part]
KUBERNETES = ["1.30", "1.34"]


def of_kind(kind):
    [found] = [part for part in KUBERAY if part["kind"] == kind]
    return found


def pods():
    """Every pod that the manifest makes, by who makes it."""
    ray = of_kind("RayService")["spec"]["rayClusterConfig"]
    [worker] = ray["workerGroupSpecs"]
    return {
        "job": of_kind("Job")["spec"]["template"],
        "head": ray["headGroupSpec"]["template"],
        "worker": worker["template"],
    }


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_manifest_is_what_kubernetes_takes(version):
    """RayService is KubeRay's own kind: its pods are checked, and its other keys were against its schema."""
    check = pytest.importorskip("kubernetes_validate", reason="in sonant[dev]")
    plain = json.loads(json.dumps(KUBERAY))  # YAML's anchors as copies
    for part in plain:
        if part["kind"] != "RayService":
            check.validate(part, version, strict=True)
    for name, pod in json.loads(json.dumps(pods())).items():
        meta = {"name": name, **pod.get("metadata", {})}
        spec = {"restartPolicy": "Always", **pod["spec"]}
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        check.validate(whole, version, strict=True)
        wrong = {**whole, "spec": {**spec, "securityContexts": {}}}
        with pytest.raises(check.ValidationError):
            check.validate(wrong, version, strict=True)


@pytest.mark.parametrize("name", ["job", "head", "worker"])
def test_every_pod_is_hardened_as_the_services_of_compose(name):
    pod = pods()[name]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001  # the image's
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()
        written = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert written == {"/data", "/tmp"}
    assert all("sizeLimit" in volume.get("emptyDir", {"sizeLimit": 1}) for volume in pod["volumes"])


def test_a_cluster_takes_the_arguments_of_the_manifest():
    service = of_kind("RayService")["spec"]
    [speech] = yaml.safe_load(service["serveConfigV2"])["applications"]
    module, _, name = speech["import_path"].partition(":")
    assert hasattr(__import__(module, fromlist=[name]), name)
    rows = (*options_on("cluster"), *CLUSTER)
    made = from_words(speech["args"], rows)
    [workers] = service["rayClusterConfig"]["workerGroupSpecs"]
    assert made["replicas"] == workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]
    [container] = workers["template"]["spec"]["containers"]
    assert made["cpus"] == float(container["resources"]["limits"]["cpu"])
    assert made["model"] == of_kind("Job")["spec"]["template"]["spec"]["containers"][0]["args"][1:]
    assert made["voices"].startswith("/data/")
    with pytest.raises(ConfigError, match="unknown setting replica;"):
        from_words(speech["args"] | {"replica": 2}, rows)


def test_rays_ports_are_for_the_cluster_alone():
    policy = of_kind("NetworkPolicy")["spec"]
    wanted = policy["podSelector"]["matchLabels"]
    for name in ("head", "worker"):
        assert wanted.items() <= pods()[name]["metadata"]["labels"].items()
    open_to_all = [rule["ports"] for rule in policy["ingress"] if "from" not in rule]
    assert open_to_all == [[{"port": 8000, "protocol": "TCP"}]]
    assert of_kind("RayService")["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_no_manifest_holds_a_key():
    for path in DEPLOY.iterdir():
        if path.is_file() and path.name not in (".env", "keys.txt"):
            text = path.read_text(encoding="utf-8")
            assert "sk-sonant-" not in text
            assert not [word for word in text.split() if len(word) > 64 and "sha256:" in word]
