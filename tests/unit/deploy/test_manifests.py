"""The manifests fit Kubernetes' schemas and each other."""

import copy
import tomllib

import kubernetes_validate
import pytest

from tests.unit.deploy import rendering as module
from tests.unit.deploy.rendering import ROOT, SETTINGS, labels_of, pod_of, rendered, selects

NAMES = {"nats", *SETTINGS}
# The oldest version that is promised (a preStop sleep needs it) and the newest that is known.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_fits_the_schema(rendering, version):
    assert rendering.documents
    for document in rendering.documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_check_refuses_an_unknown_field():
    document = copy.deepcopy(rendered("base").named("Deployment", "gateway"))
    pod_of(document)["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def test_without_a_renderer_the_failure_says_what_to_do(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError, match="Neither kubectl nor kustomize"):
        module.renderer()


def test_the_mesh_is_whole_and_in_one_namespace(rendering):
    assert set(rendering.workloads()) == NAMES
    for document in rendering.documents:
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "adlik"
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "adlik"
    labels = rendering.named("Namespace", "adlik")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_selectors_select_the_pods_of_their_name_only(rendering):
    selectors = [
        (d["metadata"]["name"], d["spec"]["selector"])
        for d in rendering.of_kind("Deployment", "StatefulSet", "PodDisruptionBudget")
    ]
    selectors += [
        (d["metadata"]["name"], {"matchLabels": d["spec"]["selector"]})
        for d in rendering.of_kind("Service")
    ]
    selectors += [
        (name, constraint["labelSelector"])
        for name, workload in rendering.workloads().items()
        for constraint in pod_of(workload).get("topologySpreadConstraints", [])
    ]
    for name, selector in selectors:
        selected = {n for n, w in rendering.workloads().items() if selects(selector, labels_of(w))}
        assert selected == {name}


def test_services_lead_to_ports_that_the_settings_name(rendering):
    for service in rendering.of_kind("Service"):
        ports = _ports(rendering.container(service["metadata"]["name"]))
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    gateway = rendering.settings("gateway")
    assert _ports(rendering.container("gateway")) == {
        "http": gateway.http_port,
        "grpc": gateway.grpc_port,
        "health": gateway.health_port,
    }
    serving = rendering.settings("serving")
    assert _ports(rendering.container("serving"))["link"] == serving.link_port


@pytest.mark.parametrize("service", SETTINGS)
def test_services_listen_where_others_reach_them(rendering, service):
    settings = rendering.settings(service)
    assert settings.health_host == "0.0.0.0"
    assert _ports(rendering.container(service))["health"] == settings.health_port
    for field in ("http_host", "grpc_host", "link_host"):
        assert getattr(settings, field, "0.0.0.0") == "0.0.0.0"
    assert getattr(settings, "link_advertise", "10.1.2.3") == "10.1.2.3"


@pytest.mark.parametrize("service", SETTINGS)
def test_every_variable_is_a_setting_of_its_service(rendering, service):
    fields = {f"ADLIK_{name.upper()}" for name in SETTINGS[service].model_fields}
    assert set(rendering.environment(service)) <= fields
    own = [entry["name"] for entry in rendering.container(service)["env"]]
    assert len(own) == len(set(own))
    assert not set(own) & set(rendering.config("adlik-settings"))


@pytest.mark.parametrize("service", SETTINGS)
def test_probes_ask_the_health_port(rendering, service):
    container = rendering.container(service)
    paths = {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    for probe, path in paths.items():
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "health"}


def test_a_start_may_take_as_long_as_the_first_models(rendering):
    probe = rendering.container("serving")["startupProbe"]
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed >= 2 * rendering.settings("serving").ready_seconds


def test_images_are_those_of_this_version(rendering):
    for service in SETTINGS:
        project = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())
        version = project["project"]["version"]
        assert rendering.container(service)["image"] == f"adlik/{service}:{version}"
    assert rendering.container("nats")["image"].startswith("nats:2.")


def test_artifacts_are_where_the_rendering_says():
    assert rendered("base").settings("serving").artifacts_url == "nats://artifacts"
    assert rendered("production with s3").settings("serving").artifacts_url.startswith("s3://")
    sources = rendered("production with s3").container("compiler")["envFrom"]
    assert [next(iter(source)) for source in sources] == ["configMapRef", "secretRef"]


def test_replicas():
    def replicas(name):
        return {n: w["spec"]["replicas"] for n, w in rendered(name).workloads().items()}

    one = dict.fromkeys(NAMES, 1)
    assert replicas("base") == one | {"gateway": 2, "serving": 2}
    assert replicas("dev") == one
    several = {"nats": 3, "gateway": 3, "serving": 3, "compiler": 2}
    assert replicas("production") == one | several


def test_only_dev_opens_ports_of_the_node():
    types = {
        name: rendered(name).named("Service", "gateway")["spec"].get("type", "ClusterIP")
        for name in ("base", "dev", "production")
    }
    assert types == {"base": "ClusterIP", "dev": "NodePort", "production": "ClusterIP"}


def _ports(container):
    return {port["name"]: port["containerPort"] for port in container["ports"]}
