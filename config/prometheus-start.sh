#!/bin/sh
# Starts Prometheus with prometheus.yml beside this file.
#
#   METRICS_TOKEN         as the instances have it
#   PROMETHEUS_RETENTION  how long to keep what it has seen, such as 90d
#
# The token comes in the environment and goes into a file that only Prometheus can read: a command line is for all to see.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)

: "${METRICS_TOKEN:?is missing: instances tell nobody without it. Make one like AUTH_SECRET}"
printf %s "$METRICS_TOKEN" > /tmp/metrics-token

unset METRICS_TOKEN
exec prometheus --config.file="$here/prometheus.yml" --storage.tsdb.path=/prometheus \
  --storage.tsdb.retention.time="${PROMETHEUS_RETENTION:-30d}"
