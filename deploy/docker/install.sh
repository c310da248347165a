#!/bin/sh
# What the build stages of the Dockerfile run: `libraries`, then `ours`.
# Installs into /opt/miniml, whose Python has no pip of its own: it is not shipped.
set -eu
tools=/build/tools/bin

install() {
  "$tools/pip" --python /opt/miniml/bin/python install --quiet "$@"
}

case $1 in
libraries)
  # The lock names all that the base's Python needs; an older Python may add a backport.
  install -r /build/requirements.lock
  # Ray's wheel brings its Java API and its reinforcement learning: 50 MB that nothing here imports.
  rm -rf /opt/miniml/lib/python3*/site-packages/ray/jars /opt/miniml/lib/python3*/site-packages/ray/rllib
  ;;
ours)
  "$tools/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir /build/wheels /build/src
  install --no-deps /build/wheels/*.whl
  "$tools/pip" --python /opt/miniml/bin/python check
  "$tools/cyclonedx-py" environment /opt/miniml/bin/python --output-reproducible \
    --output-format JSON --output-file /opt/miniml/sbom.cdx.json
  ;;
esac
