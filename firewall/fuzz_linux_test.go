package firewall_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"flanneld/firewall"
)

// notification is a message of nf_tables about an object in a table.
func notification(kind uint16, family byte, table string) []byte {
	attr := binary.NativeEndian.AppendUint16(nil, uint16(4+len(table)+1))
	attr = append(binary.NativeEndian.AppendUint16(attr, unix.NFTA_TABLE_NAME), table+"\x00"...)
	for len(attr)%4 != 0 {
		attr = append(attr, 0)
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+4+len(attr)))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|kind)
	b = append(b, make([]byte, 10)...) // flags, sequence, port
	return append(append(b, family, unix.NFNETLINK_V0, 0, 0), attr...)
}

func TestOnlyChangesThatConcernUsMakeTheTableStale(t *testing.T) {
	for _, tt := range []struct {
		name        string
		datagram    []byte
		table, host bool
	}{
		{"our table is deleted", notification(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, "flannel"), true, false},
		{"an element of a set of ours", notification(unix.NFT_MSG_DELSETELEM, unix.NFPROTO_INET, "flannel"), true, false},
		{"a table of our name in another family", notification(unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, "flannel"), false,
			false},
		{"a rule of kube-proxy", notification(unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, "kube-proxy"), false, false},
		{"a rule of iptables in nat", notification(unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, "nat"), false, false},
		{"a rule of iptables in filter", notification(unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV6, "filter"), false, true},
		{"a rule of firewalld", notification(unix.NFT_MSG_DELRULE, unix.NFPROTO_INET, "firewalld"), false, true},
		{"a chain of anybody", notification(unix.NFT_MSG_NEWCHAIN, unix.NFPROTO_INET, "mine"), false, true},
		{"a set of anybody", notification(unix.NFT_MSG_NEWSET, unix.NFPROTO_INET, "mine"), false, false},
		{"the end of a transaction", notification(unix.NFT_MSG_NEWGEN, 0, ""), false, false},
		{"several at once", append(notification(unix.NFT_MSG_NEWSET, unix.NFPROTO_INET, "mine"),
			notification(unix.NFT_MSG_DELCHAIN, unix.NFPROTO_INET, "flannel")...), true, false},
	} {
		if table, host := firewall.Judge(tt.datagram); table != tt.table || host != tt.host {
			t.Errorf("%s: our table %t, tables of others %t, want %t, %t", tt.name, table, host, tt.table, tt.host)
		}
	}
}

func FuzzNotifications(f *testing.F) {
	f.Add(notification(unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, "filter"))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { firewall.Judge(b) })
}
