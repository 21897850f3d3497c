package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"flanneld/firewall/foreign"
)

const (
	// watchBuffer holds the notifications of a ruleset that somebody writes whole, in bytes; the kernel doubles it.
	watchBuffer = 4 << 20
	lenNlmsg    = unix.SizeofNlMsghdr
	lenNfgen    = 4 // struct nfgenmsg
	attrHeader  = unix.SizeofNlAttr
	// attrTable is the number of the attribute that names the table, in the messages of all kinds of objects.
	attrTable = unix.NFTA_TABLE_NAME
)

// Watch invalidates what stands as soon as the kernel tells that others have changed it, until ctx ends, and then
// returns nil. Without notifications the resync remains.
func (f *Firewall) Watch(ctx context.Context) error {
	file, err := openWatch()
	if err != nil {
		f.log.Warn("no notifications from nftables: lost rules are restored at the next resync", "reason", err)
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer func() {
		if stop() {
			_ = file.Close()
		}
	}()
	conn, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	f.invalidate(true, true)
	buf := make([]byte, 64<<10)
	for {
		var n int
		var received error
		err := conn.Read(func(fd uintptr) bool {
			n, _, received = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(received, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(received, unix.ENOBUFS):
			f.invalidate(true, true)
			continue
		case received != nil && !errors.Is(received, unix.EINTR):
			err = received
		}
		if err != nil {
			return fmt.Errorf("watch nftables: %w", err)
		}
		f.take(buf[:max(0, n)])
	}
}

// openWatch returns a socket that the runtime's poller waits for, so that closing it ends a read.
func openWatch() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES))
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "netfilter"), nil
}

// take looks through the messages of one datagram.
func (f *Firewall) take(b []byte) {
	var table, host bool
	for len(b) >= lenNlmsg {
		length := binary.NativeEndian.Uint32(b)
		if length < lenNlmsg || int(length) > len(b) {
			break
		}
		if port := binary.NativeEndian.Uint32(b[12:]); !f.edge.own(port) {
			ours, hosts := judge(f.names.table, binary.NativeEndian.Uint16(b[4:]), b[lenNlmsg:length])
			table, host = table || ours, host || hosts
		}
		b = b[min(len(b), int(length+3)&^3):]
	}
	f.invalidate(table, host)
}

// judge reports whether a change may concern our table, and whether what we need in tables of others: base chains
// anywhere, and the chains of iptables that we go by.
func judge(own string, kind uint16, b []byte) (ours, hosts bool) {
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(b) < lenNfgen {
		return false, false
	}
	family, table := b[0], attribute(b[lenNfgen:], attrTable)
	switch kind & 0xff {
	case unix.NFT_MSG_NEWGEN:
		return false, false
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		hosts = true
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		hosts = family != unix.NFPROTO_INET && table == foreign.TableFilter || table == foreign.FirewalldForward.Table.Name
	}
	ours = family == unix.NFPROTO_INET && table == own
	return ours, hosts && !ours
}

// attribute returns the text of an attribute, without the zero at its end.
func attribute(b []byte, kind uint16) string {
	for len(b) >= attrHeader {
		length := int(binary.NativeEndian.Uint16(b))
		if length < attrHeader || length > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			text := b[attrHeader:length]
			if n := len(text); n > 0 && text[n-1] == 0 {
				text = text[:n-1]
			}
			return string(text)
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return ""
}
