#!/bin/bash
# Process 1 of a User-Mode Linux whose kernel serves a volfs mount over NFS, to itself: for tests/examples/test_nfsd.py.
# usage: nfsd_guest.sh FOLDER PYTHON; FOLDER has `store`, `exports` and the program `volfs`, and is read only.
folder=$1 python=$2
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run LC_ALL=C
mount -t proc proc /proc
for place in /run /mnt /srv /var/lib/nfs; do mount -t tmpfs tmpfs "$place"; done
"$python" "$folder/load.py" overlay fuse lockd nfsd nfsv4 nfsv3
mkdir -p /run/etc /run/work /run/root/srv/volfs /run/rpcbind
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
ip link set lo up
ip address add 10.20.0.1/16 dev lo    # as the cluster of the exports
ip address add 192.168.10.1/24 dev lo # and as its desktops

cp -r "$folder/store" /run/store
"$folder/volfs" --store /run/store mount -o allow_other,uid=1000,gid=1000 /run/root/srv/volfs
# NFSv4 shows the way to an export, from the root: the host's files, which are this machine's root, cannot be exported.
printf '[exports]\nrootdir=/run/root\n' > /etc/nfs.conf
cp "$folder/exports" /etc/exports
mkdir -p /var/lib/nfs/{sm,sm.bak,v4recovery,nfsdcltrack}
touch /var/lib/nfs/{etab,rmtab,state}
mount -t nfsd nfsd /proc/fs/nfsd
rpcbind
exportfs -ra
rpc.mountd --no-udp 2>/dev/null
rpc.nfsd --no-udp --grace-time 10 2

as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
sums() { (cd "$1/cells/versions/v2" && find zarr s0/xy s0/volume.* -type f | sort | xargs sha256sum | sha256sum) 2>/dev/null; }
mkdir /mnt/v4 /mnt/v3 /mnt/desk
mount -t nfs4 -o vers=4.2 10.20.0.1:/srv/volfs /mnt/v4 && echo "SAID mounted v4"
mount -t nfs -o vers=3,nolock 10.20.0.1:/srv/volfs /mnt/v3 && echo "SAID mounted v3"
mount -t nfs -o vers=3,nolock 192.168.10.1:/srv/volfs /mnt/desk && echo "SAID mounted desk"
echo "SAID files $(find /mnt/v4/cells/versions/v2/s0 -type f | wc -l)"
here=$(sums /run/root/srv/volfs)
for way in v3 v4; do [ "$(sums /mnt/$way)" = "$here" ] && echo "SAID same $way"; done
echo "SAID latest $(readlink /mnt/v4/cells/versions/latest)"

files=cells/branches/exp/files
as_user sh -c "echo by-v4 > /mnt/v4/$files/a" && echo "SAID here $(cat /run/root/srv/volfs/$files/a)"
as_user sh -c "echo by-v3 > /mnt/v3/$files/b" && echo "SAID here $(cat /run/root/srv/volfs/$files/b)"
sh -c "echo no > /mnt/v4/$files/root" 2>/dev/null || echo "SAID root refused"
as_user sh -c "echo no > /mnt/desk/$files/desk" 2>/dev/null || echo "SAID desktop refused"
echo 2 > /proc/sys/vm/drop_caches
echo "SAID again $(cat /mnt/v4/$files/a) $(cat /mnt/v3/$files/b)"
[ "$(sums /mnt/v4)" = "$here" ] && echo "SAID same again"
echo "SAID done"
sync
echo o > /proc/sysrq-trigger
sleep 10
