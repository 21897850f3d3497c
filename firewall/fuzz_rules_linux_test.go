package firewall

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// recorded are the messages that would write a table, by their type. What the kernel says of a table has the same form.
func recorded(f *testing.F) map[uint16][][]byte {
	f.Helper()
	c := &nftables.Conn{}
	out := map[uint16][][]byte{}
	c.TestDial = func(sent []netlink.Message) ([]netlink.Message, error) {
		for _, m := range sent {
			out[uint16(m.Header.Type)&0xff] = append(out[uint16(m.Header.Type)&0xff], m.Data)
		}
		return sent, nil
	}
	networks := []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")}
	t := render("flannel", Rules{Networks: networks, Subnets: networks, Masquerade: true, Forward: true}.normal())
	k := kernelTable(t.name)
	c.AddTable(k)
	for i, s := range t.sets {
		ks := s.kernel(k)
		ks.ID = uint32(i + 1)
		if err := c.AddSet(ks, nil); err != nil {
			f.Fatal(err)
		}
	}
	addChains(c, k, t.chains)
	_ = c.Flush() // nothing acknowledges
	return out
}

// header is that of a part of the answer to a question.
func header(question netlink.Message, kind netlink.HeaderType) netlink.Header {
	return netlink.Header{Type: kind, Flags: netlink.Multi, Sequence: question.Header.Sequence, PID: question.Header.PID}
}

// FuzzRules reads tables, chains, rules, sets and elements of any content, as a kernel would tell of them: others put
// rules into the same kernel, and into our own table.
func FuzzRules(f *testing.F) {
	messages := recorded(f)
	asked := map[uint16]uint16{ // what is answered to a question
		unix.NFT_MSG_GETTABLE: unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_GETCHAIN: unix.NFT_MSG_NEWCHAIN,
		unix.NFT_MSG_GETRULE: unix.NFT_MSG_NEWRULE,
		unix.NFT_MSG_GETSET:  unix.NFT_MSG_NEWSET, unix.NFT_MSG_GETSETELEM: unix.NFT_MSG_NEWSETELEM,
	}
	for kind, all := range messages {
		for _, data := range all {
			f.Add(byte(kind), data)
		}
	}
	f.Fuzz(func(_ *testing.T, kind byte, data []byte) {
		if len(data) < 4 {
			return // less than what every message of nf_tables has
		}
		c := &nftables.Conn{TestDial: func(sent []netlink.Message) ([]netlink.Message, error) {
			var out []netlink.Message
			for _, m := range sent {
				answer := asked[uint16(m.Header.Type)&0xff]
				bodies := messages[answer]
				if answer == uint16(kind) {
					bodies = [][]byte{data}
				}
				for _, b := range bodies {
					out = append(out, netlink.Message{Header: header(m, unix.NFNL_SUBSYS_NFTABLES<<8|netlink.HeaderType(answer)),
						Data: b})
				}
				out = append(out, netlink.Message{Header: header(m, netlink.Done), Data: make([]byte, 4)})
			}
			return out, nil
		}}
		t, err := readTable(c, "flannel")
		if err == nil {
			_ = t.shape()
			_ = changes(t, table{name: "flannel"})
			_ = differences(t, table{name: "flannel"})
		}
	})
}
