#!/usr/bin/env bash
# build.sh VENV: build the message packages beside this script into a virtual environment with ROS 2's wheels.
set -euo pipefail
venv=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
python=$venv/bin/python

# the wheels' CMake files name the Python of the container that they were built in: point them to this one
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
numpy=$("$python" -c 'import numpy; print(numpy.get_include())')
{ grep -rlE '/opt/python/cp3' "$venv/share" --include='*.cmake' || true; } | xargs -r sed -i -E \
  "s#/opt/python/cp3[^/\";]*/include/python3\.[0-9]+t?#$headers#g; s#/opt/python/cp3[^/\";]*/lib/python3[^/]*/site-packages/numpy/_core/include#$numpy#g"

export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv LD_LIBRARY_PATH=$venv/lib PATH=$venv/bin:$PATH
generator="Unix Makefiles"
if command -v ninja > /dev/null; then generator=Ninja; fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
build_package() {
  # unoptimised: a third of the build time, and the messages are small
  cmake -S "$here/$1" -B "$build/$1" -G "$generator" -DCMAKE_INSTALL_PREFIX="$venv" \
    -DPython3_EXECUTABLE="$python" -DBUILD_TESTING=OFF -DCMAKE_C_FLAGS=-O0 -DCMAKE_CXX_FLAGS=-O0
  cmake --build "$build/$1" -j"$(nproc)"
  cmake --install "$build/$1"
}
# side by side: what CMake finds out before a build takes one core
jobs=()
for package in tf2_msgs vision_msgs; do
  build_package "$package" &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
