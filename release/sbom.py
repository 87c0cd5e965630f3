"""The bill of materials of a release, CycloneDX 1.6 in JSON, checked against its schema; and the list of licences.

    python -m release.sbom LICENCES.json FOLDER     the first as `pip-licenses --format=json` writes it

Names, versions and hashes are those of the locks, which images are made of, and of the front-end's pins. Licences are
those of the environment that the tests run in. The same commit gives the same bytes.
"""

import base64
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.locks import ROOT, front_end, libraries

# npm's own word, in the LICENSE files beside the libraries.
FRONT_END_LICENCES = {"echarts": "Apache-2.0", "preact": "MIT", "htm": "Apache-2.0", "swagger-ui-dist": "Apache-2.0"}
TEXT_LIMIT = 100  # characters: some packages give all of a licence for its name
UNKNOWN = "not installed here"


def version() -> str:
    text = (ROOT / "core/candlemill/_version.py").read_text()
    found = re.search(r'__version__ = "([^"]+)"', text)
    assert found is not None
    return found[1]


def bom(commit: str, epoch: int, licences: Mapping[str, str]) -> Bom:
    """`licences` by normalised name. A library of another system has none there, and none here."""
    own = Component(
        name="candlemill",
        version=version(),
        type=ComponentType.APPLICATION,
        purl=PackageURL("pypi", None, "candlemill", version()),
        bom_ref="candlemill",
        properties=[Property(name="candlemill:commit", value=commit)],
    )
    parts = [
        Component(
            name=one.name,
            version=one.version,
            purl=(purl := PackageURL("pypi", None, one.name, one.version)),
            bom_ref=str(purl),
            licenses=[DisjunctiveLicense(name=name)] if (name := licences.get(normal(one.name))) else [],
            properties=[
                Property(name="candlemill:lock", value=",".join(one.locks)),
                *(Property(name="candlemill:sha256", value=digest) for digest in one.hashes),
            ],
        )
        for one in libraries()
    ]
    parts += [
        Component(
            name=one.name,
            version=one.version,
            purl=(purl := PackageURL("npm", None, one.name, one.version)),
            bom_ref=str(purl),
            licenses=[DisjunctiveLicense(name=FRONT_END_LICENCES[one.name])],
            hashes=[
                HashType(alg=HashAlgorithm.SHA_512, content=base64.b64decode(one.integrity.partition("-")[2]).hex())
            ],
        )
        for one in front_end()
    ]
    found = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"candlemill {commit}"))
    found.metadata.component = own
    found.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    found.register_dependency(own, parts)
    return found


def normal(name: str) -> str:
    """As PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def text_of(found: Bom) -> str:
    text = JsonV1Dot6(found).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the bill of materials is not CycloneDX: {error}")
    return text


def licence_list(found: Bom) -> str:
    rows = [
        (one.name, one.version or "", ", ".join(str(each.name) for each in one.licenses) or UNKNOWN)
        for one in found.components
    ]
    return "".join(f"{name} {number}: {licence}\n" for name, number, licence in sorted(rows))


def main(output: Path, folder: Path) -> None:
    given = {normal(one["Name"]): " ".join(one["License"].split()) for one in json.loads(output.read_text())}
    licences = {name: text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}…" for name, text in given.items()}
    commit, epoch = (
        subprocess.run(["git", "log", "-1", f"--format={form}"], cwd=ROOT, capture_output=True, text=True, check=True)
        .stdout.strip() for form in ("%H", "%ct")
    )  # fmt: skip
    found = bom(commit, int(epoch), licences)
    (folder / "candlemill.cdx.json").write_text(text_of(found) + "\n")
    (folder / "LICENCES.txt").write_text(licence_list(found))
    unknown = [one.partition(" ")[0] for one in licence_list(found).splitlines() if one.endswith(("UNKNOWN", UNKNOWN))]
    print(f"candlemill.cdx.json: {len(found.components)} libraries; without a licence: {', '.join(unknown) or 'none'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
