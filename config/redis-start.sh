#!/bin/sh
# Starts a Redis with the settings of redis.conf and the users of redis-users.acl, both beside this file:
#
#   redis-start.sh                   alone, or as the first master that Sentinels watch
#   redis-start.sh replica HOST PORT as a replica, until a Sentinel says otherwise
#   redis-start.sh cluster           as a node of a cluster
#
#   REDIS_PASSWORD        of the user gatepost
#   REDIS_ADMIN_PASSWORD  of the user operator, which replicas need; unset, there is no operator
#   REDIS_MAXMEMORY       such as 2gb; unset, there is no bound
#
# Passwords come in the environment and go into files that only Redis can read: a command line is for all to see.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
data=/data
role=${1:-alone}

: "${REDIS_PASSWORD:?is missing}"
if [ "$role" = replica ] || [ "$role" = cluster ]; then
  : "${REDIS_ADMIN_PASSWORD:?is missing: replicas need it. Make one like REDIS_PASSWORD}"
fi

digest() { printf '#%s' "$(printf %s "$1" | sha256sum | cut -d ' ' -f 1)"; }
say() { printf '%s\n' "$*"; }  # not every shell's echo leaves a backslash alone
quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

operator=off
[ -z "${REDIS_ADMIN_PASSWORD:-}" ] || operator=$(digest "$REDIS_ADMIN_PASSWORD")
sed -e '/^#/d' -e '/^$/d' -e ':join' -e '/\\$/{' -e N -e 's/ *\\\n */ /' -e 'b join' -e '}' \
  -e "s/{service}/$(digest "$REDIS_PASSWORD")/" -e "s/{operator}/$operator/" \
  "$here/redis-users.acl" > "$data/users.acl"

# Written anew at every start, but for the one line that a Sentinel changes: whose replica this is. A master that comes
# back must not take itself for one when another was chosen, nor the other way round.
config=$data/node.conf
if [ -e "$config" ]; then
  following=$(sed -n '/^replicaof /p' "$config")
elif [ "$role" = replica ]; then
  following="replicaof $2 $3"
else
  following=
fi
{
  say "include $here/redis.conf"
  say "dir $data"
  say "aclfile $data/users.acl"
  say "maxmemory ${REDIS_MAXMEMORY:-0}"
  if [ -n "${REDIS_ADMIN_PASSWORD:-}" ]; then
    say 'masteruser operator'
    say "masterauth $(quoted "$REDIS_ADMIN_PASSWORD")"
  fi
  if [ "$role" = cluster ]; then
    say 'cluster-enabled yes'
    say 'cluster-config-file nodes.conf'
    say 'cluster-node-timeout 5000'
    # A part that is lost takes its own people's requests with it, and nobody else's.
    say 'cluster-require-full-coverage no'
  fi
  say "$following"
} > "$config.new"
mv "$config.new" "$config"

unset REDIS_PASSWORD REDIS_ADMIN_PASSWORD REDISCLI_AUTH
exec "$(command -v redis-server || command -v valkey-server)" "$config"
