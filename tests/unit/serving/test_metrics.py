"""Gauges of loaded variants: shown while loaded, and not taken away by the version before."""

from adlik_serving.metrics import VariantMetrics, count_request
from prometheus_client import REGISTRY, generate_latest


def value(name, variant="v"):
    return REGISTRY.get_sample_value(name, {"model": "gauged", "variant": variant})


def test_a_versions_gauges_outlive_the_end_of_the_version_before():
    old, new = VariantMetrics("gauged", "v"), VariantMetrics("gauged", "v")
    old.show(lambda: 1, lambda: 10, 100)
    assert value("adlik_serving_queued_requests") == 1
    new.show(lambda: 2, lambda: 20, 200)
    old.hide()
    assert value("adlik_serving_queued_requests") == 2
    assert value("adlik_serving_queued_bytes") == 20
    assert value("adlik_serving_model_memory_bytes") == 200
    new.hide()
    assert value("adlik_serving_queued_requests") is None


def counted(model):
    labels = {"model": model, "code": "NOT_FOUND"}
    return REGISTRY.get_sample_value("adlik_serving_requests_total", labels) or 0


def test_requests_are_counted_by_model_and_outcome_while_the_model_is_loaded():
    variant = VariantMetrics("gauged", "v")
    variant.show(lambda: 1, lambda: 10, 100)
    count_request("gauged", "NOT_FOUND")
    count_request("gauged", "NOT_FOUND")
    assert counted("gauged") == 2
    variant.queue_seconds.observe(1)
    variant.hide()
    assert counted("gauged") == 0
    before = counted("")
    count_request("gauged", "NOT_FOUND")
    assert (counted("gauged"), counted("")) == (0, before + 1)
    assert "gauged" not in generate_latest().decode()


def test_another_variant_of_a_model_keeps_its_counts():
    old, new = VariantMetrics("gauged", "old"), VariantMetrics("gauged", "new")
    old.show(lambda: 1, lambda: 10, 100)
    new.show(lambda: 1, lambda: 10, 100)
    count_request("gauged", "NOT_FOUND")
    old.hide()
    assert counted("gauged") == 1
    assert 'variant="old"' not in generate_latest().decode()
    new.hide()
    assert "gauged" not in generate_latest().decode()
