"""Every pod runs without privileges, within limits that its settings fit, and ends in time."""

from pathlib import PurePosixPath

import pytest

from tests.unit.deploy.rendering import SETTINGS, amount, pod_of

NAMES = ["nats", *SETTINGS]


@pytest.mark.parametrize("name", NAMES)
def test_pods_have_no_privileges(rendering, name):
    pod, container = pod_of(rendering.workloads()[name]), rendering.container(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", NAMES)
def test_pods_get_no_token(rendering, name):
    pod = pod_of(rendering.workloads()[name])
    assert pod["serviceAccountName"] == name
    assert pod["automountServiceAccountToken"] is False
    assert rendering.named("ServiceAccount", name)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", NAMES)
def test_requests_are_given_and_within_limits(rendering, name):
    resources = rendering.container(name)["resources"]
    for resource in ("cpu", "memory"):
        wanted, most = (amount(resources[part][resource]) for part in ("requests", "limits"))
        assert 0 < wanted <= most


@pytest.mark.parametrize("name", NAMES)
def test_mounts_have_volumes(rendering, name):
    workload = rendering.workloads()[name]
    claims = workload["spec"].get("volumeClaimTemplates", [])
    volumes = {v["name"] for v in pod_of(workload).get("volumes", [])}
    volumes |= {claim["metadata"]["name"] for claim in claims}
    assert {m["name"] for m in rendering.container(name)["volumeMounts"]} == volumes


@pytest.mark.parametrize("service", SETTINGS)
def test_what_is_written_to_is_mounted(rendering, service):
    mounts = {m["mountPath"] for m in rendering.container(service)["volumeMounts"]}
    settings = rendering.settings(service)
    for written in (settings.cache_dir, settings.runtime_dir, PurePosixPath("/tmp/x")):
        assert mounts & {str(parent) for parent in (written, *written.parents)}


@pytest.mark.parametrize("service", SETTINGS)
def test_the_cache_fits_its_volume(rendering, service):
    volumes = pod_of(rendering.workloads()[service])["volumes"]
    (size,) = [v["emptyDir"]["sizeLimit"] for v in volumes if v["name"] == "cache"]
    settings = rendering.settings(service)
    # A copy on its way in stands beside those that are kept.
    assert settings.cache_max_bytes + settings.max_artifact_bytes < amount(size)


@pytest.mark.parametrize("service", SETTINGS)
def test_what_drains_has_the_time_for_it(rendering, service):
    container = rendering.container(service)
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = pod_of(rendering.workloads()[service])["terminationGracePeriodSeconds"]
    # A service drains at most three things one after another: its server, its models, its jobs.
    assert grace >= before + 3 * rendering.settings(service).drain_seconds + 10


@pytest.mark.parametrize(
    ("service", "field"),
    [("compiler", "isolated_memory_bytes"), ("optimizer", "optimize_memory_bytes")],
)
def test_a_job_reaches_its_own_limit_before_the_pods(rendering, service, field):
    limit = amount(rendering.container(service)["resources"]["limits"]["memory"])
    assert getattr(rendering.settings(service), field) <= limit * 0.8


def test_the_compiler_measures_as_serving_runs(rendering):
    compiler, serving = rendering.settings("compiler"), rendering.settings("serving")
    assert compiler.engine_threads == serving.engine_threads > 0


@pytest.mark.parametrize("service", ["gateway", "serving"])
def test_a_rollout_takes_nothing_away(rendering, service):
    strategy = rendering.workloads()[service]["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_what_answers_users_or_keeps_state_is_not_evicted_at_once(rendering):
    budgets = {d["metadata"]["name"]: d["spec"] for d in rendering.of_kind("PodDisruptionBudget")}
    assert {name: spec["maxUnavailable"] for name, spec in budgets.items()} == {
        "nats": 1,
        "gateway": 1,
        "serving": 1,
    }
