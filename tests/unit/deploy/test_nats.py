"""The NATS configuration is one that the real server takes, and it keeps what services ask for."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.conftest import free_port
from tests.unit.deploy.rendering import amount, rendered

SERVER = Path(sys.executable).with_name("nats-server")


def _write(rendering, folder):
    for name, text in rendering.config("nats-config").items():
        (folder / name).write_text(text)
    return folder / "nats.conf"


def _environment(rendering):
    variables = {e["name"]: e.get("value") for e in rendering.container("nats")["env"]}
    return {"POD_NAME": "nats-0", "STORE_BYTES": variables["STORE_BYTES"]}


def test_the_server_takes_the_configuration(rendering, tmp_path):
    config = _write(rendering, tmp_path)
    command, environment = [SERVER, "-t", "-c", config], _environment(rendering)
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_server_is_healthy_by_the_probes_and_stores_as_configured(tmp_path):
    rendering = rendered("base")
    config, client, monitor = _write(rendering, tmp_path), free_port(), free_port()
    text = config.read_text().replace("/data", str(tmp_path / "data"))
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{client}")
    config.write_text(text.replace("0.0.0.0:8222", f"127.0.0.1:{monitor}"))
    url = f"http://127.0.0.1:{monitor}"
    container = rendering.container("nats")
    server = subprocess.Popen(
        [SERVER, "-c", config], env=_environment(rendering), stderr=subprocess.DEVNULL
    )
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert json.loads(_get(url + container[probe]["httpGet"]["path"]))["status"] == "ok"
        jetstream = json.loads(_get(f"{url}/jsz"))["config"]
    finally:
        server.terminate()
        server.wait()
    assert jetstream["sync_always"] is True
    assert jetstream["max_storage"] == amount("18Gi")


def test_the_store_leaves_room_in_its_volume(rendering):
    (claim,) = rendering.workloads()["nats"]["spec"]["volumeClaimTemplates"]
    volume = amount(claim["spec"]["resources"]["requests"]["storage"])
    store = amount(_environment(rendering)["STORE_BYTES"].removesuffix("B"))
    settings = rendering.settings("gateway")
    kept = settings.events_max_bytes * 1.1 + settings.traces_max_bytes
    assert kept + settings.max_artifact_bytes < store < volume


def test_as_many_copies_as_servers(rendering):
    servers = rendering.workloads()["nats"]["spec"]["replicas"]
    assert rendering.settings("compiler").nats_replicas == servers
    assert rendering.settings("compiler").nats_url == "nats://nats:4222"


def test_each_server_of_the_cluster_is_a_route():
    rendering = rendered("production")
    workload = rendering.workloads()["nats"]
    service = workload["spec"]["serviceName"]
    routes = re.findall(r"nats://(\S+)", rendering.config("nats-config")["cluster.conf"])
    assert routes == [f"nats-{i}.{service}:6222" for i in range(workload["spec"]["replicas"])]
    assert rendering.named("Service", service)["spec"]["publishNotReadyAddresses"] is True


def test_no_two_servers_of_the_cluster_share_a_machine():
    workload = rendered("production").workloads()["nats"]
    rules = workload["spec"]["template"]["spec"]["topologySpreadConstraints"]
    hard = [r["topologyKey"] for r in rules if r["whenUnsatisfiable"] == "DoNotSchedule"]
    assert hard == ["kubernetes.io/hostname"]


def _get(url):
    give_up = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.read()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
