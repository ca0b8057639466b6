#!/usr/bin/env bash
# Sets up the vendor's TPU compiler, in a Python 3.10 environment of its own, and the libraries of its
# simulator: var/tpu/venv and var/tpu/lib. Does nothing where they are there already.
# Usage, from any folder: scripts/tpu_environment.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home=var/tpu
#: These versions compiled and ran together.
PACKAGES=(tpu_mlir==1.30.2 torch==2.11.0 psutil==7.2.2 flatbuffers==25.12.19)
#: The environment took 6.3 GB, where torch came with its CUDA libraries, and its packages 3.5 GB on the way.
NEEDED_GB=11
#: The oldest C library that the compiler's programs run with.
NEEDED_GLIBC=2.35

say_and_end() {
  echo "The TPU compiler cannot be set up: $1" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python3.10; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  say_and_end "Python 3.10 with venv was not found; the compiler runs on no other (pyenv install 3.10 brings it)"
}

check_machine() {
  local glibc free_kb
  [ "$(uname -sm)" = "Linux x86_64" ] || say_and_end "it exists for Linux on x86_64, not for $(uname -sm)"
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || true
  [ "$(printf '%s\n' "$NEEDED_GLIBC" "${glibc:-0}" | sort -V | head -n 1)" = "$NEEDED_GLIBC" ] ||
    say_and_end "it needs glibc $NEEDED_GLIBC or newer, this machine has ${glibc:-another C library}"
  free_kb=$(df -Pk "$home" | awk 'NR == 2 { print $4 }')
  [ "$free_kb" -ge $((NEEDED_GB * 1000 * 1000)) ] ||
    say_and_end "it needs $NEEDED_GB GB in $home, where $((free_kb / 1000 / 1000)) GB are free"
}

install() {
  local python package
  python=$(find_python)
  if ! parallel --version 2>/dev/null </dev/null | grep -q "GNU parallel"; then
    bash scripts/install_system_packages.sh parallel
  fi
  echo "Installing ${PACKAGES[*]} into $home/venv (the first time takes some minutes)"
  "$python" -m venv --clear "$home/venv"
  "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "${PACKAGES[@]}"
  package=$("$home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tpu_mlir
  # The package brings a C library that is older than the loader of newer systems, whose own serves as well.
  rm -f "$package"/lib/third_party/{libc.so.6,libm.so.6,libpthread.so.0}
  mkdir -p "$home/lib" "$home/parallel"
  cp "$package"/lib/{libbmrt.so.1.0,libbmlib.so.0,libcmodel.so,libcpuop.so} "$home/lib"
  touch "$home/parallel/will-cite" # GNU parallel asks for a citation once; compile_bmodel.sh points it here
}

mkdir -p "$home"
exec 9>"$home/lock" # two at once would install into one another
flock 9
if [ "$(cat "$home/ready" 2>/dev/null || true)" != "${PACKAGES[*]}" ]; then
  check_machine
  install
  echo "${PACKAGES[*]}" >"$home/ready"
fi
