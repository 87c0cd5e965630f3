#!/bin/sh
# environment.sh NAME: /opt/candlemill with what images/NAME.txt locks, and the wheel. Runs inside the build.
set -eu
python -m venv --without-pip /opt/candlemill
install() {
    /opt/build/bin/pip --python /opt/candlemill/bin/python install --no-compile --only-binary :all: "$@"
}
install --require-hashes --no-deps --requirement "images/$1.txt"
install --no-deps --no-index /wheels/candlemill-*.whl
cd /opt/candlemill
packages=$(echo lib/python3.*/site-packages)
ln -s "$packages/candlemill/_share/functions" functions
# What no function reads: tests, headers, and the type stubs of others.
find "$packages" -depth -type d \( -name tests -o -name include \) ! -path '*/candlemill/*' -exec rm -rf {} +
find "$packages" -name '*.pyi' -delete
# Byte code that is never checked against sources or times: the root is read-only, and its files are reproducible.
bin/python -m compileall -q --invalidation-mode unchecked-hash "$packages"
find . -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +
