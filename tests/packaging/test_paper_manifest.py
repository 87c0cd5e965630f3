"""`knative/paper` without a cluster: built, of the right shape, and in step with the code."""

from pathlib import Path

from candlemill.cluster.kustomize import build
from candlemill.config import bundled
from candlemill.paper.request import order_of
from shapes import problems

ROOT = Path(__file__).parents[2]


def test_the_manifest_is_sound_and_asks_for_what_the_code_runs() -> None:
    built = build(bundled("knative") / "paper")
    assert {(one["kind"], one["metadata"]["name"]): problems(one) for one in built if problems(one)} == {}
    (service,) = [one for one in built if one["kind"] == "Service"]
    template = service["spec"]["template"]
    scaling = {name.partition("/")[2]: value for name, value in template["metadata"]["annotations"].items()}
    assert scaling["min-scale"] == scaling["max-scale"] == "1"
    (container,) = template["spec"]["containers"]
    assert (ROOT / Path(container["command"][-1]).relative_to("/opt/candlemill")).is_file()
    (request,) = [one["value"] for one in container["env"] if one["name"] == "CANDLEMILL_PAPER_REQUEST"]
    assert order_of(request, "", "").specs
