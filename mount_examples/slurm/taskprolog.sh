#!/bin/bash
# Slurm's TaskProlog: what it prints as `export NAME=VALUE` is in the environment of every task.
# shellcheck source=mount_examples/slurm/volfs.conf
. "${VOLFS_SLURM_CONF:-/etc/slurm/volfs.conf}"
echo "export VOLFS_MOUNT=$VOLFS_MOUNT"
