#!/bin/sh
# Show a volfs mount over WebDAV: as a network drive of Windows, macOS and desktops, or to any WebDAV client.
#
#   VOLFS_MOUNT=/srv/volfs USER_FILE=/etc/volfs/htpasswd ./webdav.sh [ADDRESS:PORT [MORE OPTIONS OF RCLONE]]
#
# Without a USER_FILE there is no password: then only for 127.0.0.1. Read-only unless VOLFS_WRITABLE=yes.
set -eu
mount=${VOLFS_MOUNT:-/srv/volfs}
address=${1:-127.0.0.1:8081}
[ $# -eq 0 ] || shift
[ -z "${USER_FILE:-}" ] || set -- --htpasswd "$USER_FILE" "$@"
[ "${VOLFS_WRITABLE:-no}" = yes ] || set -- --read-only "$@"

# --copy-links: `latest`, tags and `chunks` are symbolic links, which WebDAV does not have: show what they lead to.
# --dir-cache-time: a commit is seen after so long. --poll-interval 0: the mount has nothing to be polled for.
# --etag-hash "": an ETag from time and size, rather than by reading a whole volume to be asked for its name.
# --local-no-check-updated: a branch may change while it is read; that is no error.
exec rclone serve webdav "$mount" --addr "$address" --config "" \
    --copy-links --local-no-check-updated --dir-cache-time 5s --poll-interval 0 --etag-hash "" "$@"
