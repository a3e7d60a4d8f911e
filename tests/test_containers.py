"""Both container recipes hold the same, and all of it is here."""

import re

from tests.pipeline import ROOT

DOCKER = (ROOT / "containers/Dockerfile").read_text()
APPTAINER = (ROOT / "containers/icis.def").read_text()


def found(pattern, text):
    return re.findall(pattern, text, re.MULTILINE)


def test_both_recipes_copy_the_same_files_which_are_here():
    docker = {name for line in found(r"^COPY (.*) \S+$", DOCKER) for name in line.split()}
    apptainer = set(found(r"^ +(\S+) /opt/icis/\S+$", APPTAINER))
    assert docker == apptainer
    assert all((ROOT / name).exists() for name in docker)
    ignored = (ROOT / "containers/Dockerfile.dockerignore").read_text()
    assert docker == set(found(r"^!(\S+)$", ignored))


def test_both_recipes_begin_alike_and_install_the_lock_as_the_makefile_does():
    assert found(r"^FROM (.*)$", DOCKER) == found(r"^From: (.*)$", APPTAINER)
    install = (
        r"-m pip install --\S+ (--constraint requirements.lock)(?: --editable)? '\.\[([a-z,]+)\]'$"
    )
    docker, apptainer = found(install, DOCKER), found(install, APPTAINER)
    makefile = found(install, (ROOT / "Makefile").read_text())
    assert docker == apptainer
    assert len(docker) == len(makefile) == 1
    assert docker[0][0] == makefile[0][0]


def test_the_snakefile_names_the_image_that_is_built():
    assert 'container: "containers/icis.sif"' in (ROOT / "Snakefile").read_text()
