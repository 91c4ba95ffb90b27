"""The network policies allow what the mesh needs, and nothing else."""

import pytest

from tests.unit.deploy.rendering import SETTINGS, labels_of, rendered, selects

OUTSIDE = "outside"
NAMES = [OUTSIDE, "nats", *SETTINGS]
PORTS = [53, 443, 4222, 6222, 8080, 8081, 8090, 8100, 8222]
NEEDED = {
    *((OUTSIDE, "gateway", port) for port in (8080, 8081)),
    *((service, "nats", 4222) for service in SETTINGS),
    ("gateway", "serving", 8100),
}


def allowed(rendering, source, target, port):
    """Whether the policies let a connection out of its source and into its target."""
    return _side(rendering, "egress", source, target, port) and _side(
        rendering, "ingress", target, source, port
    )


def _side(rendering, direction, name, peer, port):
    if name == OUTSIDE:
        return True
    pods = {n: labels_of(w) for n, w in rendering.workloads().items()}
    policies = [
        d["spec"]
        for d in rendering.of_kind("NetworkPolicy")
        if direction.capitalize() in d["spec"]["policyTypes"]
        and selects(d["spec"]["podSelector"], pods[name])
    ]
    assert policies, f"no policy covers the {direction} of {name}"
    peers = "to" if direction == "egress" else "from"
    return any(
        _open(rule, peers, pods.get(peer), port)
        for spec in policies
        for rule in spec.get(direction, [])
    )


def _open(rule, peers, labels, port):
    if port not in [entry["port"] for entry in rule["ports"]]:
        return False
    if peers not in rule:
        return True
    return labels is not None and any(selects(p["podSelector"], labels) for p in rule[peers])


@pytest.mark.parametrize("name", ["base", "dev"])
def test_only_what_is_needed_is_open(name):
    assert _open_ways(rendered(name)) == NEEDED


@pytest.mark.parametrize("name", ["production", "production with s3"])
def test_servers_of_a_cluster_reach_each_other(name):
    assert _open_ways(rendered(name)) == NEEDED | {("nats", "nats", 6222)}


def test_names_are_resolved_everywhere(rendering):
    for name in rendering.workloads():
        assert _side(rendering, "egress", name, OUTSIDE, 53)


def test_only_with_a_bucket_do_services_reach_out():
    for service in SETTINGS:
        assert not allowed(rendered("base"), service, OUTSIDE, 443)
        assert allowed(rendered("production with s3"), service, OUTSIDE, 443)


def _open_ways(rendering):
    return {
        (source, target, port)
        for source in NAMES
        for target in NAMES
        for port in PORTS
        if target != OUTSIDE
        if allowed(rendering, source, target, port)
    }
