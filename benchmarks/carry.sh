#!/usr/bin/env bash
# Brings clare-cache to a machine that has PyTorch and no network.
#   benchmarks/carry.sh pack FOLDER        where there is a network: wheels of clare-cache and of what
#                                          carried.txt names, for CPython 3.12 on x86-64 Linux
#   benchmarks/carry.sh install FOLDER SITE   there: unpack them into SITE, without asking any index
# Then: export PYTHONPATH=SITE
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
case "${1:-}" in
pack)
  folder=${2:?the folder for the wheels}
  mkdir -p "$folder"
  platforms=()
  for version in 2_28 2_27 2_26 2_17 2_12 2_5; do
    platforms+=(--platform "manylinux_${version}_x86_64")
  done
  platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
  grep -v '^#' "$here/benchmarks/carried.txt" | xargs "$python" -m pip download --quiet --no-deps \
    --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
    --constraint "$here/constraints.txt" --dest "$folder"
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$here"
  size=$(du -sm "$folder" | cut -f1)
  echo "$folder: $(ls "$folder" | wc -l) wheels, $size MiB"
  [ "$size" -lt 64 ] || { echo "expected less than 64 MiB, found $size. Shorten carried.txt." >&2; exit 1; }
  ;;
install)
  folder=${2:?the folder with the wheels}
  site=${3:?the folder to unpack them into}
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" \
    "$folder"/*.whl
  ;;
*)
  sed -n '2,6s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
