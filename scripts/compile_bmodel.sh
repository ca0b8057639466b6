#!/usr/bin/env bash
# Makes a bmodel, what a Sophon TPU runs, from a checkpoint in Hugging Face's form; see docs/sophon.md.
# Usage: scripts/compile_bmodel.sh CHECKPOINT OUTPUT.bmodel -s LENGTH -q TYPE [-c CHIP] [FLAG…]
#   LENGTH is the context in tokens, TYPE bf16, f16, w4bf16 or w4f16, CHIP bm1684x unless said otherwise; flags
#   are those of the vendor's llm_convert.py, such as --do_sample or --use_history_kv --chunk_length 1024.
#   The tokenizer is laid beside the output, in a folder 'config'.
set -euo pipefail

say_and_end() {
  echo "No bmodel was made: $1" >&2
  exit 1
}

[ $# -ge 4 ] || { sed -n '3,6s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -f "$1/config.json" ] || say_and_end "$1 is no checkpoint: it has no config.json"
checkpoint=$(realpath "$1") output=$(realpath -m "$2")
shift 2
case $output in *.bmodel) ;; *) say_and_end "the output's name must end in .bmodel, unlike $output" ;; esac
# The vendor's compiler runs such code with its eyes closed.
! compgen -G "$checkpoint/*.py" >/dev/null ||
  say_and_end "$checkpoint holds Python files, which the compiler would run; move away what you do not trust"

bash "$project/scripts/tpu_environment.sh"
mkdir -p "$(dirname "$output")"
weights_kb=$(du -skL "$checkpoint" | cut -f1)
free_kb=$(df -Pk "$(dirname "$output")" | awk 'NR == 2 { print $4 }')
# The weights are written three times: beside the graphs, in the parts, in the whole.
[ "$free_kb" -ge $((weights_kb * 3)) ] ||
  say_and_end "it needs $((weights_kb * 3 / 1000)) MB beside $output, where $((free_kb / 1000)) MB are free"

work=$(mktemp -d "$output.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$output.log
# The compiler finds its own programs on PATH and sets its library path itself; HOME's settings do not count.
if ! (
  cd "$work"
  unset PYTHONPATH LD_LIBRARY_PATH VIRTUAL_ENV
  export PATH="$project/var/tpu/venv/bin:$PATH" PARALLEL_HOME="$project/var/tpu/parallel" HF_HUB_OFFLINE=1
  llm_convert.py -m "$checkpoint" -o "$work/out" "$@"
) </dev/null >"$log" 2>&1; then
  tail -n 5 "$log" >&2
  say_and_end "the compiler failed; $log has all it said"
fi
mv "$work"/out/*.bmodel "$output"
# The tokenizer goes beside it, where Lectern looks for it if no other folder is named.
config=$(dirname "$output")/config
if [ ! -e "$config" ]; then
  mv "$work/out/config" "$config"
elif ! diff -rq "$work/out/config" "$config" >/dev/null; then
  echo "$config is of another model: run this one with --token-config $checkpoint" >&2
fi
rm -f "$log"
echo "$output"
