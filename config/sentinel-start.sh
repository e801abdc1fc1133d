#!/bin/sh
# Starts a Sentinel that watches the master named `gatepost`:
#
#   sentinel-start.sh HOST PORT      where that master is at first; an address, since a name is gone with its container
#
#   REDIS_PASSWORD        of the user gatepost, who asks here which Redis is the master
#   REDIS_ADMIN_PASSWORD  of the user operator, as whom Sentinels talk to Redis and to one another
#
# A Sentinel keeps what it knows in its own configuration, which therefore is in the volume and not a file of ours.
set -eu
umask 077
data=/data
config=$data/sentinel.conf

: "${REDIS_PASSWORD:?is missing}"
: "${REDIS_ADMIN_PASSWORD:?is missing: Sentinels need it. Make one like REDIS_PASSWORD}"

digest() { printf '#%s' "$(printf %s "$1" | sha256sum | cut -d ' ' -f 1)"; }
say() { printf '%s\n' "$*"; }  # not every shell's echo leaves a backslash alone
quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

{
  say 'user default reset off'
  say "user gatepost reset on $(digest "$REDIS_PASSWORD") +@connection -@dangerous +client|setname" \
    '+sentinel|masters +sentinel|master +sentinel|replicas +sentinel|slaves +sentinel|get-master-addr-by-name'
  say "user operator reset on $(digest "$REDIS_ADMIN_PASSWORD") &* +@all"
} > "$data/users.acl"

# What it has learnt stays; passwords and users are those of now.
known=
[ ! -e "$config" ] || known=$(sed -n -e '/^sentinel \(auth\|sentinel\)-\(user\|pass\) /d' -e '/^sentinel /p' "$config")
[ -n "$known" ] || known="sentinel monitor gatepost $1 $2 2
sentinel down-after-milliseconds gatepost 2000
sentinel failover-timeout gatepost 10000
sentinel parallel-syncs gatepost 1"
{
  say 'port 26379'
  say "dir $data"
  say "aclfile $data/users.acl"
  say "$known"
  say 'sentinel auth-user gatepost operator'
  say "sentinel auth-pass gatepost $(quoted "$REDIS_ADMIN_PASSWORD")"
  say 'sentinel sentinel-user operator'
  say "sentinel sentinel-pass $(quoted "$REDIS_ADMIN_PASSWORD")"
} > "$config.new"
mv "$config.new" "$config"

unset REDIS_PASSWORD REDIS_ADMIN_PASSWORD REDISCLI_AUTH
exec "$(command -v redis-server || command -v valkey-server)" "$config" --sentinel
