#!/usr/bin/env bash
# How limner-135m is taught: invented logs of nine domains, each with a catalogue that says much of its items and one
# that says little; the words of the teacher that pass every check; LoRA; then a trial on users who were not taught, of
# two more domains among them. Stopped, it goes on where it was. Two hours on two cores.
#   bash agent/adapters/limner-135m.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(realpath -m "${1:-.cache/writer}")
models=$(realpath -m "${LIMNER_HOME:-.limner}")/models
limner=$PWD/.venv/bin/limner
teacher=${TEACHER:-qwen2.5-coder-1.5b}
users=${USERS:-14} # of each catalogue
seed=100
lessons=$work/lessons.jsonl

in_home() { # where the weights and the one vLLM of all domains are
    export LIMNER_HOME=$1
    mkdir -p "$LIMNER_HOME" "$work/llm" "$models"
    ln -sfn "$models" "$LIMNER_HOME/models"
    [ "$LIMNER_HOME" = "$work" ] || ln -sfn "$work/llm" "$LIMNER_HOME/llm"
}

held_out=6
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

simulated() { # DOMAIN [--bare]: its log, with a recommender to say why something is recommended
    in_home "$work/$1${2:-}"
    [ ! -e "$LIMNER_HOME/ready" ] || return 0
    "$limner" simulate --users $((users + held_out)) --items 400 --events 60 --seed "$seed" --domain "$@" --ingest
    "$limner" profile write --all --writer template
    "$limner" train
    touch "$LIMNER_HOME/ready"
}

distilled() {
    for domain in $taught; do
        for bare in "" --bare; do
            simulated "$domain" $bare
            "$limner" writer distill "$lessons" --all --limit "$users" --domain "$domain"
        done
    done
}

tried() {
    for domain in $taught recipes podcasts; do
        for bare in "" --bare; do
            simulated "$domain" $bare
            "$limner" writer try --all --except "$lessons" --domain "$domain"
        done
    done
}

in_home "$work"
"$limner" model pull "$teacher"
with_model "$teacher" distilled
in_home "$work"
"$limner" writer train "$lessons" -o "$work/limner-135m"
with_model "$work/limner-135m/model" tried
