#!/bin/sh
# After installation and upgrade. dpkg says "configure" and the old version, rpm the number of versions that are installed now.
set -e

case "$1" in
configure) old=$2 ;;
1) old= ;;
[0-9]*) old=some ;;
*) exit 0 ;; # dpkg takes back a step that failed
esac

# A package that comes back after its removal finds the mask that the removal has left.
if command -v deb-systemd-helper >/dev/null; then
	[ ! -L /etc/systemd/system/flanneld.service ] || old=
	deb-systemd-helper unmask flanneld.service >/dev/null || true
fi

# allowed ACTION reports whether this machine lets packages start services (an image that is being built does not).
allowed() {
	[ -d /run/systemd/system ] || return 1
	[ -x /usr/sbin/policy-rc.d ] || return 0
	code=0
	/usr/sbin/policy-rc.d flanneld "$1" >/dev/null 2>&1 || code=$?
	[ $code -ne 101 ]
}

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	systemd-tmpfiles --create flannel.conf || true
	/usr/lib/systemd/systemd-sysctl 50-flannel.conf || true
fi

if [ -z "$old" ]; then
	if command -v deb-systemd-helper >/dev/null; then
		# A service that the administrator has disabled stays disabled.
		if deb-systemd-helper --quiet was-enabled flanneld.service; then
			deb-systemd-helper enable flanneld.service >/dev/null || true
		fi
		# The first start waits for etcd, for ever if need be. The installation does not wait with it.
		if allowed start; then systemctl --no-block start flanneld.service || true; fi
	else
		systemctl preset flanneld.service >/dev/null 2>&1 || true
	fi
elif allowed restart; then
	# The kernel goes on forwarding while the daemon is replaced.
	systemctl --no-block try-restart flanneld.service 'flanneld@*.service' || true
fi
exit 0
