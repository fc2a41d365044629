#!/bin/bash
# A llama-server that is the real one (`llama-server.real` beside it) with other arguments. Unset
# variables change nothing:
#   DROP      flags that are left out, with their values
#   ADD       words that are added
#   ADD_KV    words that are added where the type of K is not f16
#   WRITES    a file that it has to write first
#   LOG_SAYS  a sed script for what it logs
args=()
kv=f16
if [[ " $* " == *" -m "* ]]; then
  if [[ -n $WRITES ]]; then echo here >"$WRITES" || exit 1; fi
  while (($#)); do
    [[ $1 == -ctk ]] && kv=$2
    if [[ " $DROP " == *" $1 "* ]]; then
      shift 2
    else
      args+=("$1")
      shift
    fi
  done
  read -ra more <<<"$ADD"
  args+=("${more[@]}")
  if [[ $kv != f16 ]]; then
    read -ra more <<<"$ADD_KV"
    args+=("${more[@]}")
  fi
  [[ -z $LOG_SAYS ]] || exec 2> >(exec sed --unbuffered "$LOG_SAYS" >&2)
else
  args=("$@")
fi
exec "$0.real" "${args[@]}"
