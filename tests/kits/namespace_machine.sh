# A machine of its own to test configurations on: run by tests/kits/namespace_machine.py as the first process of new namespaces.
# Of the files that configurations go to it sees copies, which are gone with it: /etc, /usr/sbin, /opt, /srv, /run, /var/….
# usage: machine.sh FOLDER [PROGRAM…]; FOLDER/setup.sh puts files in place, PROGRAM stays, and is the machine's process 1.
set -e
folder=$1
shift
mount -t proc proc /proc
for place in /run /opt /srv /var/log /var/lib/nfs /mnt; do
    [ ! -d $place ] || mount -t tmpfs tmpfs $place
done
for place in etc usr/sbin; do
    mkdir -p "/run/over/$place" "/run/work/$place"
    mount -t overlay -o "lowerdir=/$place,upperdir=/run/over/$place,workdir=/run/work/$place" overlay "/$place"
done
ip link set lo up 2>/dev/null || true
sh -e "$folder/setup.sh"
mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || true
# What systemd and its services say goes to the folder: there is no journal, and the console is the real machine's.
touch "$folder/console"
mount --bind "$folder/console" /dev/console
mkdir -p /run/units/service.d
printf '[Service]\nStandardOutput=append:%s\nStandardError=inherit\n' "$folder/console" > /run/units/service.d/log.conf
touch "$folder/ready"
exec env -i container=volfs PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C SYSTEMD_UNIT_PATH=/run/units "$@"
