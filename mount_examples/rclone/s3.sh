#!/bin/sh
# Show a volfs mount as S3: each dataset is a bucket. Needs rclone 1.65 or newer (Debian 12 has 1.60).
#
#   VOLFS_MOUNT=/srv/volfs S3_KEY=name,secret ./s3.sh [ADDRESS:PORT [MORE OPTIONS OF RCLONE]]
#
# Without a S3_KEY anybody who reaches the port may read: then only for 127.0.0.1.
set -eu
mount=${VOLFS_MOUNT:-/srv/volfs}
address=${1:-127.0.0.1:8082}
[ $# -eq 0 ] || shift
[ -z "${S3_KEY:-}" ] || set -- --auth-key "$S3_KEY" "$@"
rclone serve s3 --help >/dev/null 2>&1 || { echo "s3.sh: rclone serves S3 from 1.65 on; see rclone.org/install" >&2; exit 1; }

# --read-only: S3 clients write in parts and list what they wrote, which suits a directory badly: write over WebDAV, NFS
# or SMB. The other options are as in webdav.sh; --etag-hash "" matters most here: with MD5, rclone's default, a client
# that lists a directory would have every volume in it computed and read. .volfs/ is for users of the mount itself.
exec rclone serve s3 "$mount" --addr "$address" --config "" --read-only --force-path-style=true \
    --copy-links --local-no-check-updated --dir-cache-time 5s --poll-interval 0 --etag-hash "" --exclude ".volfs/**" "$@"
