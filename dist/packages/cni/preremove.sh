#!/bin/sh
# Before removal, not before an upgrade. dpkg says "remove", rpm 0.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
for file in /etc/cni/net.d/*.conflist /etc/cni/net.d/*.conf /etc/cni/net.d/*.json; do
	if [ -f "$file" ] && grep -q '"type": *"flannel"' "$file"; then
		echo "flannel-cni-plugin: $file names the plugin flannel, which is removed. Containers can be neither started nor deleted until you remove or change the file." >&2
	fi
done
exit 0
