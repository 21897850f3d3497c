#!/bin/sh
# Before removal, not before an upgrade. dpkg says "remove", rpm 0. Afterwards docker must start, and not in the subnet.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac

running=
[ ! -d /run/systemd/system ] || running=yes

# The administrator may have enabled it.
[ -z "$running" ] || systemctl --no-reload stop flannel-docker-restart.path || true
if command -v systemctl >/dev/null; then
	systemctl --no-reload disable flannel-docker-restart.path >/dev/null 2>&1 || true
fi

# The other way to tell docker is a copy of a drop-in of ours. Without our programs docker would not start with it.
file=/etc/systemd/system/docker.service.d/flannel.conf
if [ -f "$file" ] && grep -q /usr/lib/flannel/ "$file"; then
	if grep -q 'flannel-docker daemon-json' "$file"; then
		/usr/lib/flannel/flannel-docker daemon-json -remove || true
	fi
	if cmp -s "$file" /usr/share/flannel/docker/flannel.conf; then
		rm -f "$file"
		rmdir "${file%/*}" 2>/dev/null || true
	else
		mv -f "$file" "$file.removed"
		echo "flanneld-docker: docker would not start with $file any more; it is $file.removed now"
	fi
fi

# docker keeps the address of a bridge that it finds, so its next start, before a reboot, takes the bridge away. One that containers
# are attached to stays.
address=
for file in /run/flannel/subnet.env /run/flannel/docker.env; do
	[ ! -f "$file" ] || address=$(sed -n 's/^FLANNEL_SUBNET=//p' "$file")
done
if [ -n "$running" ] && [ -n "$address" ] && ip -o -4 address show dev docker0 2>/dev/null | grep -qF " $address "; then
	mkdir -p /run/systemd/system/docker.service.d
	cat >/run/systemd/system/docker.service.d/flannel-removed.conf <<-'END'
		# Written by the removal of flanneld-docker, gone with the next boot: docker0 still has an address of flannel's network.
		[Service]
		ExecStartPre=-/bin/sh -c 'ls /sys/class/net/docker0/brif | grep -q . || ip link delete docker0'
	END
	echo "flanneld-docker: docker goes on with the subnet until it is restarted: systemctl restart docker"
fi
exit 0
