#!/usr/bin/env bash
# Makes the virtual environment (if there is none) and installs a requirements file into it.
# Usage: scripts/setup_venv.sh FOLDER REQUIREMENTS
set -euo pipefail
folder=$1 requirements=$2

find_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or newer was not found: install it (Debian: apt-get install python3 python3-venv)" >&2
  return 1
}

if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python cannot make virtual environments: apt-get install python$version-venv" >&2
    exit 1
  fi
  echo "Making $folder with Python $version"
  "$python" -m venv --clear "$folder"
fi
echo "Installing $requirements into $folder (the first time takes some minutes)"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$requirements"
