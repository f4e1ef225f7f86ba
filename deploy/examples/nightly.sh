#!/bin/sh
# A night's backup of many hosts, with its report. Run by tsm-nightly.timer, by cron, or by hand.
#
#   nightly.sh REQUEST.xml HOSTS.txt REPORTS
#
# REPORTS/<date>/ gets each host's response, answers.ndjson, and report.txt, which is also what this prints.
# The batch is named by the date: run again on the same day it asks again, and backs up nothing twice.
# TSM_WORKER_BROKER_URL, or the configuration, has the broker. WINDOW: a host that has not started by then does not
# start. WAIT: how long the answers are awaited. Exit code: 0 all succeeded, 1 not all did, 2 usage, 75 no broker.
set -eu
request=$1
hosts=$2
today=$(date +%Y-%m-%d)
reports=$3/$today

mkdir -p "$reports"
code=0
# shellcheck disable=SC2086 # TSM_WORKER may be several words
${TSM_WORKER:-tsm-worker} submit "$request" --hosts-file "$hosts" --batch "nightly-$today" \
    --expires "${WINDOW:-4h}" --wait --wait-timeout "${WAIT:-10h}" --json --out "$reports" \
    >>"$reports/answers.ndjson" 2>"$reports/progress.txt" || code=$?

{
    echo "Nightly backup of $today: $([ "$code" = 0 ] && echo good || echo "NOT GOOD (exit code $code)")"
    # The summary: the batch's line with the outcomes counted, then who failed, is outstanding or unroutable.
    grep -E '^(tsm-worker: |batch nightly-.*: [0-9]|failed: |outstanding: |unroutable, )' "$reports/progress.txt" || true
} | tee "$reports/report.txt"
exit "$code"
