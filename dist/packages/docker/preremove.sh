#!/bin/sh
# Before removal, not before an upgrade. dpkg says "remove", rpm 0. Afterwards docker must start.
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

# A running docker keeps its containers, and so its bridge. docker remembers the address of the bridge, too.
address=
for file in /run/flannel/subnet.env /run/flannel/docker.env; do
	[ ! -f "$file" ] || address=$(sed -n 's/^FLANNEL_SUBNET=//p' "$file")
done
if [ -n "$running" ] && [ -n "$address" ] && ip -o -4 address show dev docker0 2>/dev/null | grep -qF " $address "; then
	echo "flanneld-docker: docker0 keeps $address over restarts of docker. For another address start docker once with a \"bip\" of your own, see docker.md"
fi
exit 0
