#!/bin/sh
# Makes one cluster of empty Redis nodes, three masters and a replica for each, and does nothing where there is one:
#
#   cluster-create.sh HOST:PORT HOST:PORT ...
#
#   REDIS_ADMIN_PASSWORD  of the user operator
set -eu
: "${REDIS_ADMIN_PASSWORD:?is missing: a cluster needs it. Make one like REDIS_PASSWORD}"
export REDISCLI_AUTH="$REDIS_ADMIN_PASSWORD"

cli=$(command -v redis-cli || command -v valkey-cli)
say() { node=$1; shift; "$cli" --user operator -h "${node%:*}" -p "${node##*:}" "$@"; }

for node in "$@"; do
  until [ "$(say "$node" ping 2>&1)" = PONG ]; do sleep 1; done
done

if say "$1" cluster info | grep -q '^cluster_slots_assigned:0'; then
  "$cli" --user operator --cluster create "$@" --cluster-replicas 1 --cluster-yes
fi

tries=60
until say "$1" cluster info | grep -q '^cluster_state:ok'; do
  tries=$((tries - 1))
  if [ "$tries" = 0 ]; then
    echo "The cluster does not come up. Ask: redis-cli --user operator --cluster check $1" >&2
    exit 1
  fi
  sleep 1
done
