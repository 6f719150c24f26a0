#!/usr/bin/env bash
# How limner-135m is taught: invented logs of nine domains, the words of the teacher that pass every check, LoRA; then
# a trial on two domains that are never taught. Stopped, it goes on where it was. Hours on two cores.
#   bash agent/adapters/limner-135m.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(realpath -m "${1:-.cache/writer}")
models=$(realpath -m "${LIMNER_HOME:-.limner}")/models
limner=$PWD/.venv/bin/limner
teacher=${TEACHER:-qwen2.5-coder-1.5b}
users=${USERS:-45}
seed=100

for domain in shop courses music video news films books games groceries recipes podcasts; do
    export LIMNER_HOME=$work/$domain
    mkdir -p "$LIMNER_HOME" "$models"
    [ -e "$LIMNER_HOME/models" ] || ln -s "$models" "$LIMNER_HOME/models"
    if [ ! -e "$LIMNER_HOME/ready" ]; then
        "$limner" simulate --users "$users" --items 400 --events 60 --seed "$seed" --domain "$domain" --ingest
        "$limner" profile write --all --writer template
        "$limner" train
        touch "$LIMNER_HOME/ready"
    fi
    LIMNER_LLM__MODEL=$teacher "$limner" writer distill "$work/lessons.jsonl" --all --domain "$domain"
done

export LIMNER_HOME=$work/recipes
"$limner" writer train "$work/lessons.jsonl" -o "$work/limner-135m" --hold-out recipes --hold-out podcasts
for domain in recipes podcasts; do
    LIMNER_HOME=$work/$domain LIMNER_LLM__MODEL=$work/limner-135m/model "$limner" writer try --all --domain "$domain"
done
