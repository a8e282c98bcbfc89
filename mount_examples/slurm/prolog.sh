#!/bin/bash
# Slurm's Prolog: mounts the store on the node before the first job that needs it. Runs as root on each node of a job; an
# exit status other than 0 drains the node and puts the job back into the queue.
set -euo pipefail
# shellcheck source=mount_examples/slurm/volfs.conf
. "${VOLFS_SLURM_CONF:-/etc/slurm/volfs.conf}"

mkdir -p "$VOLFS_STATE/jobs" "$VOLFS_MOUNT" "$(dirname "$VOLFS_CATALOG")" 2>/dev/null || true # a dead mount is no directory
# One at a time: jobs start and end together.
exec 9>"$VOLFS_STATE/lock"
flock -w 300 9

: >"$VOLFS_STATE/jobs/$SLURM_JOB_ID"
if ! timeout 30 cat "$VOLFS_MOUNT/README.txt" >/dev/null 2>&1; then
    # Also takes away what a daemon that died has left. The daemon must not keep the lock.
    "$VOLFS" --store "$VOLFS_STORE" --catalog "$VOLFS_CATALOG" mount -o "$VOLFS_OPTIONS" --wait "$VOLFS_WAIT" "$VOLFS_MOUNT" 9>&- || {
        rm -f "$VOLFS_STATE/jobs/$SLURM_JOB_ID"
        exit 1
    }
fi
