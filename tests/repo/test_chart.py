"""The Helm chart: lints, renders with every `ci/` file, refuses wrong values, and names real settings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from pydantic_settings import BaseSettings

from serve.settings import ServeSettings
from services.hosting.settings import HostingSettings
from services.ingest.settings import IngestSettings
from services.results.settings import ResultsSettings
from services.trainer.settings import TrainerSettings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "loupe"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
SETTINGS: dict[str, type[BaseSettings]] = {
    "ingest": IngestSettings,
    "results": ResultsSettings,
    "trainer": TrainerSettings,
    "hosting": HostingSettings,
    "ray-head": ServeSettings,
    "ray-worker": ServeSettings,
}
RECOMMENDED = ("name", "instance", "component", "part-of", "version", "managed-by")
# Variables that Ray itself reads.
RAYS_OWN = {"RAY_USAGE_STATS_ENABLED"}


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render(values, name="line", namespace="inspection")
    return [
        document
        for name, text in texts.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def values_of(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return values


def pod_templates(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield document["spec"]["template"]
        elif document["kind"] == "RayCluster":
            yield document["spec"]["headGroupSpec"]["template"]
            yield from (group["template"] for group in document["spec"]["workerGroupSpecs"])


def containers(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for template in pod_templates(documents):
        yield from template["spec"]["containers"]


@pytest.fixture(params=CI, ids=lambda path: path.stem)
def documents(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(yaml.safe_load(request.param.read_text()))


@pytest.mark.parametrize("path", CI, ids=lambda path: path.stem)
def test_the_chart_lints(path: Path) -> None:
    report = helm.lint(str(CHART), yaml.safe_load(path.read_text()), strict=True, kube_version="v1.34.0")
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] >= 2] == []


def test_all_processes_are_rendered() -> None:
    documents = rendered(values_of("ingest"))
    assert {(d["kind"], d["metadata"]["name"]) for d in documents} == {
        ("Deployment", "line-loupe-results"),
        ("Deployment", "line-loupe-trainer"),
        ("Deployment", "line-loupe-hosting"),
        ("StatefulSet", "line-loupe-ingest"),
        ("RayCluster", "line-loupe-ray"),
        ("Service", "line-loupe-results"),
        ("Service", "line-loupe-ingest"),
        ("Service", "line-loupe-ingest-pods"),
        ("Service", "line-loupe-gateway"),
        ("ServiceAccount", "line-loupe"),
    }


def test_objects_have_the_recommended_labels_and_selectors_no_version(
    documents: list[dict[str, Any]],
) -> None:
    for document in documents:
        labels = document["metadata"]["labels"]
        assert {f"app.kubernetes.io/{name}" for name in RECOMMENDED} <= set(labels)
        selector = str(document.get("spec", {}).get("selector", ""))
        assert "version" not in selector
        assert "helm.sh/chart" not in selector


def test_selectors_find_their_own_pods_only(documents: list[dict[str, Any]]) -> None:
    templates = list(pod_templates(documents))
    for document in documents:
        selector = document.get("spec", {}).get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            found = [t for t in templates if wanted.items() <= t["metadata"]["labels"].items()]
            assert len(found) == 1, document["metadata"]["name"]


def test_pods_are_restricted_and_bounded(documents: list[dict[str, Any]]) -> None:
    for template in pod_templates(documents):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert not spec["automountServiceAccountToken"]
        assert spec["terminationGracePeriodSeconds"] >= 25
    for container in containers(documents):
        security = container["securityContext"]
        assert security["capabilities"]["drop"] == ["ALL"]
        assert not security["allowPrivilegeEscalation"]
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


def test_our_processes_are_probed_on_healthz(documents: list[dict[str, Any]]) -> None:
    for container in containers(documents):
        if container["name"] in {"ingest", "results", "trainer", "hosting"}:
            (port,) = (one["containerPort"] for one in container["ports"])
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                command = container[probe]["exec"]["command"]
                assert f"127.0.0.1:{port}/healthz" in command[-1]
                compile(command[-1], "probe", "exec")


def test_environment_names_are_settings(documents: list[dict[str, Any]]) -> None:
    for container in containers(documents):
        if container["name"] in SETTINGS:
            known = names_of(SETTINGS[container["name"]])
            for variable in container["env"]:
                name = variable["name"]
                needless = name in RAYS_OWN or is_shared(name)
                assert name in known or needless, f"{container['name']}: {name}"


def names_of(settings: type[BaseSettings]) -> set[str]:
    return {
        str(field.validation_alias or f"LOUPE_{name.upper()}")
        for name, field in settings.model_fields.items()
    }


def is_shared(name: str) -> bool:
    """Tell whether a variable is given to every process, whether it needs it or not."""
    return name == "LOUPE_KAFKA_BOOTSTRAP" or name.startswith("AWS_")


def test_required_settings_are_given(documents: list[dict[str, Any]]) -> None:
    for container in containers(documents):
        if container["name"] in SETTINGS:
            given = {variable["name"] for variable in container["env"]}
            fields = SETTINGS[container["name"]].model_fields
            for name, field in fields.items():
                assert not field.is_required() or f"LOUPE_{name.upper()}" in given, name


def test_hosting_knows_the_units_of_the_whole_cluster_and_a_worker_its_own() -> None:
    documents = rendered(values_of("cluster"))
    units = {
        container["name"]: variable["value"]
        for container in containers(documents)
        for variable in container.get("env", [])
        if variable["name"] == "LOUPE_INFERENCE_UNITS"
    }
    assert units == {"hosting": "12", "ray-worker": "4"}
    (cluster,) = (d for d in documents if d["kind"] == "RayCluster")
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert group["rayStartParams"]["resources"] == '"{\\"inference_unit\\": 4}"'
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "ray-token"}


def test_an_ingester_keeps_its_spool_and_ends_before_it_is_killed() -> None:
    documents = rendered(values_of("ingest"))
    (ingest,) = (d for d in documents if d["kind"] == "StatefulSet")
    (claim,) = ingest["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    pod = ingest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {one["name"]: one.get("value", "") for one in container["env"]}
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "spool")
    assert given["LOUPE_SPOOL_FOLDER"].startswith(f"{mount['mountPath']}/")
    assert float(given["LOUPE_INGEST_STOP_S"]) < pod["terminationGracePeriodSeconds"]
    assert container["envFrom"] == [{"secretRef": {"name": "camera-logins"}}]
    services = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Service"}
    assert services[ingest["spec"]["serviceName"]]["clusterIP"] == "None"
    assert services["line-loupe-ingest"]["ports"][0]["port"] == container["ports"][0]["containerPort"]


def test_triton_listens_on_loopback_only() -> None:
    (triton,) = (one for one in containers(rendered(values_of("minimal"))) if one["name"] == "triton")
    for door in ("http", "grpc", "metrics"):
        assert f"--{door}-address=127.0.0.1" in triton["args"]
    assert "ports" not in triton


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kafka": {"bootstrap": ""}}, "bootstrap"),
        ({"kafka": {"bootstrap": "kafka"}}, "bootstrap"),
        ({"database": {"existingSecret": ""}}, "existingSecret"),
        ({"results": {"replicas": 0}}, "replicas"),
        ({"ray": {"worker": {"unitsPerNode": "two"}}}, "unitsPerNode"),
        ({"ingest": {"replicas": 0}}, "replicas"),
        ({"ingest": {"spoolSize": "much"}}, "spoolSize"),
        ({"ingest": {"folders": [{"claim": "press-1", "mountPath": "data"}]}}, "mountPath"),
        ({"cameras": []}, "cameras"),
        ({"ingest": {"terminationGracePeriodSeconds": 5}}, "terminationGracePeriodSeconds"),
        ({"kafak": {}}, "kafak"),
    ],
    ids=str,
)
def test_the_schema_refuses_wrong_values(wrong: dict[str, Any], says: str) -> None:
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values_of("minimal"))
        with pytest.raises(helm.HelmValuesError, match=says):
            chart.validate_schema({**values_of("minimal"), **wrong})


def test_every_value_is_described() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for above, line in pairwise(lines):
        is_leaf = line.strip() and not line.strip().startswith("#") and not line.endswith(":")
        inside_resources = line.strip().startswith(("requests:", "limits:"))
        if is_leaf and not inside_resources:
            assert above.strip().startswith("# --"), line
