#!/usr/bin/env bash
# How limner-135m is taught: invented logs of nine domains, each with a catalogue that says much of its items and one
# that says little; a few hundred lessons of the teacher; then many more of the pupil itself, which writes several times
# as fast, of other users; of both only what passes every check. LoRA; then a trial on users who were not taught, of two
# more domains among them. Summaries are left to code. Stopped, it goes on where it was. Two hours on two cores, or more.
#   bash agent/adapters/limner-135m.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(realpath -m "${1:-.cache/writer}")
models=$(realpath -m "${LIMNER_HOME:-.limner}")/models
limner=$PWD/.venv/bin/limner
teacher=${TEACHER:-qwen2.5-coder-1.5b}
users=${USERS:-8}          # of each catalogue, of whom the teacher writes
own_users=${OWN_USERS:-16} # of each catalogue, of whom the pupil does
held_out=6
seed=100
taught="shop courses music video news films books games groceries"
export LIMNER_LLM__SUMMARY=false

in_home() { # where the weights and the one vLLM of all domains are
    export LIMNER_HOME=$1
    mkdir -p "$LIMNER_HOME" "$work/llm" "$models"
    ln -sfn "$models" "$LIMNER_HOME/models"
    [ "$LIMNER_HOME" = "$work" ] || ln -sfn "$work/llm" "$LIMNER_HOME/llm"
}

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

simulated() { # USERS SEED DOMAIN [--bare]: its log, with a recommender to say why something is recommended
    in_home "$work/$2-$3${4:-}"
    [ ! -e "$LIMNER_HOME/ready" ] || return 0
    "$limner" simulate --users "$1" --items 400 --events 60 --seed "$2" --domain "${@:3}" --ingest
    "$limner" profile write --all --writer template
    "$limner" train
    touch "$LIMNER_HOME/ready"
}

each() { # DOMAINS COMMAND…: in the home of each catalogue
    for domain in $1; do
        for bare in "" --bare; do
            "${@:2}" "$domain" $bare
        done
    done
}

by_teacher() {
    simulated $((users + held_out)) "$seed" "$@"
    "$limner" writer distill "$work/lessons.jsonl" --all --limit "$users" --domain "$1"
}

by_pupil() {
    simulated "$own_users" $((seed + 1)) "$@"
    "$limner" writer distill "$work/own-lessons.jsonl" --all --domain "$1"
}

tried() {
    simulated $((users + held_out)) "$seed" "$@"
    "$limner" writer try --all --except "$work/lessons.jsonl" --domain "$1"
}

in_home "$work"
"$limner" model pull "$teacher"
with_model "$teacher" each "$taught" by_teacher
in_home "$work"
"$limner" writer train "$work/lessons.jsonl" -o "$work/pupil"
with_model "$work/pupil/model" each "$taught" by_pupil
in_home "$work"
"$limner" writer train "$work/lessons.jsonl" "$work/own-lessons.jsonl" -o "$work/limner-135m"
with_model "$work/limner-135m/model" each "$taught recipes podcasts" tried
