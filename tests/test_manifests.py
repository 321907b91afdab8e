"""The manifests for JobSet, KServe and Docker Compose have only fields that exist, and fit seedtf.

kubernetes-validate knows only the kinds of Kubernetes itself. JobSet, InferenceService and the Compose
file are therefore checked against the published fields of their types, which are copied to this module.
The Job in the JobSet and the resources of the InferenceService are also checked against the schemas of
Kubernetes. No test applies a manifest to a cluster.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from test_cluster import KUBERNETES, SCRIPTS, seedtf_commands

from seedtf.commands.arguments import parse_given_flags
from seedtf.config.train_config import TrainConfig
from seedtf.training.distributed.choice import check_even_batch
from seedtf.training.distributed.cluster import read_cluster

TEXT, COUNT, BOOLEAN = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
ANYTHING: dict[str, Any] = {"type": "object"}


def fields(required: str = "", **known: Any) -> dict[str, Any]:
    """A JSON schema of an object with these fields and no others.

    Args:
        required: the names of the required fields, separated by spaces.
        **known: the schema of each field.
    """
    return {
        "type": "object",
        "properties": known,
        "required": required.split(),
        "additionalProperties": False,
    }


def array_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    head = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": ANYTHING}
    return fields("apiVersion kind metadata spec", **head, spec=spec)


# api/jobset/v1alpha2/jobset_types.go of kubernetes-sigs/jobset
JOBSET = resource(
    "jobset.x-k8s.io/v1alpha2",
    "JobSet",
    fields(
        "replicatedJobs",
        network=fields(
            enableDNSHostnames=BOOLEAN, publishNotReadyAddresses=BOOLEAN, subdomain=TEXT
        ),
        suspend=BOOLEAN,
        ttlSecondsAfterFinished=COUNT,
        failurePolicy=fields(
            maxRestarts=COUNT,
            restartStrategy=one_of("Recreate", "BlockingRecreate", "InPlaceRestart"),
            rules=array_of(
                fields(
                    "name action",
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action=one_of("FailJobSet", "RestartJobSet", "RestartJob"),
                    onJobFailureReasons=array_of(
                        one_of(
                            "BackoffLimitExceeded",
                            "DeadlineExceeded",
                            "FailedIndexes",
                            "MaxFailedIndexesExceeded",
                            "PodFailurePolicy",
                        )
                    ),
                    targetReplicatedJobs=array_of(TEXT),
                )
            ),
        ),
        replicatedJobs=array_of(
            fields("name template", name=TEXT, groupName=TEXT, replicas=COUNT, template=ANYTHING)
        ),
    ),
)

# pkg/apis/serving/v1beta1: predictor.go, predictor_model.go and component.go of kserve/kserve; a model
# also has the fields of a container.
INFERENCE_SERVICE = resource(
    "serving.kserve.io/v1beta1",
    "InferenceService",
    fields(
        "predictor",
        predictor=fields(
            "model",
            minReplicas=COUNT,
            maxReplicas=COUNT,
            model=fields(
                "modelFormat",
                modelFormat=fields("name", name=TEXT, version=TEXT),
                runtime=TEXT,
                runtimeVersion=TEXT,
                protocolVersion=one_of("v1", "v2", "grpc-v1", "grpc-v2"),
                storageUri={"type": "string", "pattern": "^(pvc|s3|gs|hf|https)://"},
                resources=ANYTHING,
                env=array_of(ANYTHING),
            ),
        ),
    ),
)

# schema/compose-spec.json of compose-spec/compose-spec
DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
COMPOSE = fields(
    "services",
    name={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
    services={
        "type": "object",
        "additionalProperties": fields(
            "image",
            image={"type": "string", "pattern": r"^[\w./-]+:\d+\.\d+\.\d+$"},
            environment=ANYTHING,
            ports=array_of({"type": "string", "pattern": r"^[\d.]+:\d+:\d+$"}),
            volumes=array_of(
                fields(
                    "type",
                    type=one_of("bind", "volume", "tmpfs"),
                    source=TEXT,
                    target=TEXT,
                    read_only=BOOLEAN,
                )
            ),
            healthcheck=fields(
                test=array_of(TEXT),
                interval=DURATION,
                timeout=DURATION,
                retries=COUNT,
                start_period=DURATION,
            ),
            cap_drop=array_of(TEXT),
            security_opt=array_of(TEXT),
            restart=one_of("no", "always", "on-failure", "unless-stopped"),
        ),
    },
)
FILES = {
    "kubernetes/jobset.yaml": JOBSET,
    "serving/inferenceservice.yaml": INFERENCE_SERVICE,
    "serving/compose.yaml": COMPOSE,
}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((SCRIPTS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_has_only_fields_of_its_type(name: str) -> None:
    jsonschema.validate(load(name), FILES[name])
    # The check must be able to fail: it refuses an unknown field, and a service that is a number.
    for section in ("spec", "services"):
        wrong = copy.deepcopy(load(name))
        if section in wrong:
            wrong[section]["replicatedJob"] = 1
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(wrong, FILES[name])


def test_no_image_has_the_tag_latest() -> None:
    """The tag ``latest`` means another image after each release."""
    texts = {
        path: path.read_text(encoding="utf-8")
        for folder in ("kubernetes", "serving")
        for path in (SCRIPTS / folder).iterdir()
    }
    assert not [path.name for path, text in texts.items() if ":latest" in text]


def job_of_jobset() -> dict[str, Any]:
    """The Job that JobSet makes from jobset.yaml."""
    (replicated,) = load("kubernetes/jobset.yaml")["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "seedlings-workers-0"}}
    return {**job, **replicated["template"]}


def test_the_job_of_the_jobset_fits_the_schema_of_kubernetes() -> None:
    kubernetes_validate.validate(job_of_jobset(), KUBERNETES, strict=True)


def test_the_job_of_the_jobset_equals_job_yaml() -> None:
    """TF_CONFIG and the subdomain may differ, because JobSet names the pods and makes the Service."""
    _, job = yaml.safe_load_all((SCRIPTS / "kubernetes" / "job.yaml").read_text())
    expected, found = job["spec"], job_of_jobset()["spec"]
    assert expected["template"]["spec"].pop("subdomain") == "seedlings"
    for spec in (expected, found):
        for variable in spec["template"]["spec"]["containers"][0]["env"]:
            variable.pop("value", None)
    assert found == expected


def test_the_pods_of_the_jobset_are_a_cluster_of_seedtf() -> None:
    manifest, job = load("kubernetes/jobset.yaml"), job_of_jobset()["spec"]
    name, network = manifest["metadata"]["name"], manifest["spec"]["network"]
    (replicated,) = manifest["spec"]["replicatedJobs"]
    assert (replicated["replicas"], network["enableDNSHostnames"]) == (1, True)
    (container,) = job["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    (port,) = (each["containerPort"] for each in container["ports"])
    for index in range(job["completions"]):
        cluster = read_cluster(variables["TF_CONFIG"].replace("$(INDEX)", str(index)))
        assert cluster.index == index
        assert cluster.addresses == tuple(
            f"{name}-{replicated['name']}-0-{number}.{network['subdomain']}:{port}"
            for number in range(job["completions"])
        )
    for arguments in seedtf_commands(container["args"][0]):
        given = parse_given_flags(TrainConfig, "train", arguments)
        check_even_batch(job["completions"], given.get("batch_size", job["completions"]))


def test_the_resources_of_the_served_model_fit_the_schema_of_kubernetes() -> None:
    model = load("serving/inferenceservice.yaml")["spec"]["predictor"]["model"]
    container = {"name": "kserve-container", "image": "i", "resources": model["resources"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    pod["spec"] = {"containers": [container]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_kserve_and_compose_run_the_same_version_and_serve_the_same_name() -> None:
    service = load("serving/inferenceservice.yaml")
    server = load("serving/compose.yaml")["services"]["serving"]
    model = service["spec"]["predictor"]["model"]
    assert server["image"] == f"tensorflow/serving:{model['runtimeVersion']}"
    assert server["environment"] == {"MODEL_NAME": service["metadata"]["name"]}
    (models,) = server["volumes"]
    # TensorFlow Serving looks for numbered versions in /models/<MODEL_NAME>.
    assert models["target"] == f"/models/{service['metadata']['name']}"
    assert model["modelFormat"] == {"name": "tensorflow", "version": "2"}
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in job_of_jobset()["spec"]["template"]["spec"]["volumes"]
    }
    claim, _, path = model["storageUri"].removeprefix("pvc://").partition("/")
    assert {claim} == claims
    assert path == "runs/seedlings/export"  # where `seedtf export /runs/seedlings` writes


def test_the_compose_file_publishes_its_ports_on_localhost_only() -> None:
    ports = load("serving/compose.yaml")["services"]["serving"]["ports"]
    assert ports == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]


def test_the_address_in_the_comments_contains_the_name_of_the_model() -> None:
    for name in ("serving/compose.yaml", "serving/inferenceservice.yaml"):
        text = (SCRIPTS / Path(name)).read_text(encoding="utf-8")
        assert "/v1/models/seedlings:predict" in text
    assert json.dumps(load("serving/compose.yaml"))  # raises TypeError for a value that JSON lacks
