#!/bin/bash
# Slurm's Epilog: takes the mount away when the last job of the node that used it has ended. An exit status other than 0
# drains the node, so only what an administrator should look at is one.
set -euo pipefail
# shellcheck source=mount_examples/slurm/volfs.conf
. "${VOLFS_SLURM_CONF:-/etc/slurm/volfs.conf}"

[ -d "$VOLFS_STATE/jobs" ] || exit 0
exec 9>"$VOLFS_STATE/lock"
flock -w 300 9

rm -f "$VOLFS_STATE/jobs/$SLURM_JOB_ID"
[ "$VOLFS_KEEP" != yes ] || exit 0
[ -z "$(ls -A "$VOLFS_STATE/jobs")" ] || exit 0
mountpoint -q "$VOLFS_MOUNT" || ! ls "$VOLFS_MOUNT" >/dev/null 2>&1 || exit 0 # not mounted, and not broken either
# By force if a program that outlived its job still uses it.
"$VOLFS" umount "$VOLFS_MOUNT" 9>&- || "$VOLFS" umount --force "$VOLFS_MOUNT" 9>&-
