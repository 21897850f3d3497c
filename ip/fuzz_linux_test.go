package ip

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// encoded is a netlink message of any content.
func encoded(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), body...) // flags, sequence, port
}

// FuzzNotifications takes in notifications of any content. The kernel is trusted to send none that is not well formed;
// whatever stands in one, nothing panics, and an event has an object.
func FuzzNotifications(f *testing.F) {
	addr := []byte{2, 24, 0, 0, 2, 0, 0, 0, 8, 0, unix.IFA_LOCAL, 0, 10, 5, 0, 1}
	neigh := []byte{unix.AF_BRIDGE, 0, 0, 0, 2, 0, 0, 0, unix.NUD_PERMANENT, 0, 0, 0, 10, 0, unix.NDA_LLADDR, 0, 2, 0, 0,
		0, 0, 1, 0, 0, 8, 0, unix.NDA_DST, 0, 10, 5, 0, 1}
	route := []byte{2, 24, 0, 0, unix.RT_TABLE_MAIN, 70, 0, unix.RTN_UNICAST, 4, 0, 0, 0, 8, 0, unix.RTA_DST, 0, 10, 5, 1,
		0, 8, 0, unix.RTA_OIF, 0, 2, 0, 0, 0}
	link := append(make([]byte, unix.SizeofIfInfomsg), 9, 0, unix.IFLA_IFNAME, 0, 'e', 't', 'h', '0', 0, 0, 0, 0)
	for kind, body := range map[uint16][]byte{
		unix.RTM_NEWADDR: addr, unix.RTM_DELADDR: addr, unix.RTM_NEWNEIGH: neigh, unix.RTM_NEWROUTE: route,
		unix.RTM_NEWLINK: link, unix.RTM_DELLINK: link,
	} {
		f.Add(encoded(kind, body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := watcher{names: names{1: "lo", 2: "eth0"}, f: func(ev Event) {
			if ev.Object == nil {
				t.Error("an event without an object")
			}
		}}
		for m := range split(b) {
			m.Pid = 0 // else /proc is asked for a name
			w.notify(m)
		}
	})
}
