#!/usr/bin/env bash
# How limner-135m is taught: invented logs of nine domains, the words of the teacher that pass every check, LoRA; then
# a trial on two domains that are never taught. Stopped, it goes on where it was. Two hours on two cores.
#   bash agent/adapters/limner-135m.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(realpath -m "${1:-.cache/writer}")
models=$(realpath -m "${LIMNER_HOME:-.limner}")/models
limner=$PWD/.venv/bin/limner
teacher=${TEACHER:-qwen2.5-coder-1.5b}
users=${USERS:-25}
seed=100
lessons=$work/lessons.jsonl

in_home() { # where the weights and the one vLLM of all domains are
    export LIMNER_HOME=$1
    mkdir -p "$LIMNER_HOME" "$work/llm" "$models"
    ln -sfn "$models" "$LIMNER_HOME/models"
    [ "$LIMNER_HOME" = "$work" ] || ln -sfn "$work/llm" "$LIMNER_HOME/llm"
}

held_out=10 # users of each domain
taught="shop courses music video news films books games groceries"

with_model() { # NAME COMMAND…: while vLLM serves it
    in_home "$work"
    "$limner" model serve "$1" &
    served=$!
    trap 'kill $served 2>/dev/null || true' EXIT
    LIMNER_LLM__MODEL=$1 "${@:2}"
    kill $served 2>/dev/null || true
    wait $served || true
    trap - EXIT
}

simulated() { # DOMAIN: its log, with a recommender to say why something is recommended
    in_home "$work/$1"
    [ ! -e "$LIMNER_HOME/ready" ] || return 0
    "$limner" simulate --users $((users + held_out)) --items 400 --events 60 --seed "$seed" --domain "$1" --ingest
    "$limner" profile write --all --writer template
    "$limner" train
    touch "$LIMNER_HOME/ready"
}

distilled() {
    for domain in $taught; do
        simulated "$domain"
        "$limner" writer distill "$lessons" --all --limit "$users" --domain "$domain"
    done
}

tried() {
    for domain in $taught recipes podcasts; do
        simulated "$domain"
        "$limner" writer try --all --except "$lessons" --domain "$domain"
    done
}

in_home "$work"
"$limner" model pull "$teacher"
with_model "$teacher" distilled
in_home "$work"
"$limner" writer train "$lessons" -o "$work/limner-135m"
with_model "$work/limner-135m/model" tried
