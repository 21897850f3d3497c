package firewall

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"flanneld/firewall/foreign"
)

// rule is a rule, or a part of one, twice: as nft prints it and as the kernel runs it. One read from the kernel has no
// text.
type rule struct {
	text  string
	exprs []expr.Any
}

// add appends a rule that consists of these parts.
func (c *chain) add(parts ...rule) {
	var r rule
	var words []string
	for _, p := range parts {
		if p.text != "" {
			words = append(words, p.text)
		}
		r.exprs = append(r.exprs, p.exprs...)
	}
	r.text = strings.Join(words, " ")
	c.rules = append(c.rules, r)
}

// The kernel's registers hold 16 bytes each; one is enough for rules that load and compare in turn.
const reg = unix.NFT_REG_1

const (
	offsetUDPPort = 2      // destination port in the UDP header
	offsetVNI     = 8 + 4  // in a VXLAN packet, from the start of the UDP header
	lenVNI        = 3      // bytes
	offsetSaddr4  = 12     // source address in the IPv4 header; the destination follows
	offsetSaddr6  = 8      // the same in the IPv6 header
	lenAddr4      = 32 / 8 // bytes
	lenAddr6      = 128 / 8
)

// family limits a rule of the table, which sees both, to one family. nft prints it only where nothing else tells.
func family(is4 bool) rule {
	proto := byte(unix.NFPROTO_IPV6)
	if is4 {
		proto = unix.NFPROTO_IPV4
	}
	return rule{"", []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal(proto)}}
}

func equal(b ...byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: b} }

// loadAddr loads the source or the destination address of the packet.
func loadAddr(is4, source bool) *expr.Payload {
	offset, length := uint32(offsetSaddr6), uint32(lenAddr6)
	if is4 {
		offset, length = offsetSaddr4, lenAddr4
	}
	if !source {
		offset += length
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func ipWord(is4 bool) string {
	if is4 {
		return "ip"
	}
	return "ip6"
}

func saddrIn(is4 bool, name string) rule {
	return rule{
		fmt.Sprintf("%s saddr @%s", ipWord(is4), in(is4, name)),
		[]expr.Any{loadAddr(is4, true), &expr.Lookup{SourceRegister: reg, SetName: in(is4, name)}},
	}
}

func daddrIn(is4 bool, name string) rule {
	return rule{
		fmt.Sprintf("%s daddr @%s", ipWord(is4), in(is4, name)),
		[]expr.Any{loadAddr(is4, false), &expr.Lookup{SourceRegister: reg, SetName: in(is4, name)}},
	}
}

// multicast matches packets to 224.0.0.0/4 or ff00::/8.
func multicast(is4 bool) rule {
	load := loadAddr(is4, false)
	if !is4 {
		load.Len = 1
		return rule{"ip6 daddr ff00::/8", []expr.Any{load, equal(0xff)}}
	}
	return rule{"ip daddr 224.0.0.0/4", []expr.Any{load, mask(0xf0, 0, 0, 0), equal(0xe0, 0, 0, 0)}}
}

func mask(b ...byte) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(b)), Mask: b, Xor: make([]byte, len(b))}
}

func kubeProxyMark() rule {
	mark := binaryutil.NativeEndian.PutUint32(foreign.MarkKubeProxy)
	return rule{
		fmt.Sprintf("meta mark & %#08[1]x == %#08[1]x", foreign.MarkKubeProxy),
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, mask(mark...), equal(mark...)},
	}
}

func udpPort(port uint16) rule {
	return rule{fmt.Sprintf("udp dport %d", port), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equal(unix.IPPROTO_UDP),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offsetUDPPort, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, port)...),
	}}
}

// otherVNI matches VXLAN packets of any other virtual network.
func otherVNI(vni uint32) rule {
	own := binary.BigEndian.AppendUint32(nil, vni)[4-lenVNI:]
	return rule{fmt.Sprintf("@th,%d,%d != %#x", 8*offsetVNI, 8*lenVNI, vni), []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offsetVNI, Len: lenVNI},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: own},
	}}
}

// remember counts the packet on its sender in a dynamic set. Where the set is full the kernel ends the rule, so nothing
// may follow it.
func remember(is4 bool, name string) rule {
	return rule{fmt.Sprintf("update @%s { %s saddr counter }", in(is4, name), ipWord(is4)), []expr.Any{
		loadAddr(is4, true),
		&expr.Dynset{SrcRegKey: reg, SetName: in(is4, name), Operation: unix.NFT_DYNSET_OP_UPDATE,
			Exprs: []expr.Any{&expr.Counter{}}},
	}}
}

func masquerade(random bool) rule {
	text := "masquerade"
	if random {
		text += " fully-random"
	}
	return rule{text, []expr.Any{&expr.Masq{FullyRandom: random}}}
}

func counter() rule { return rule{"counter", []expr.Any{&expr.Counter{}}} }

func verdictReturn() rule {
	return rule{"return", []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}
}

func verdictAccept() rule {
	return rule{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
}

func verdictDrop() rule {
	return rule{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
}

func verdictJump(chain string) rule {
	return rule{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// canonical describes what the expressions do to a packet: equal texts, equal behaviour. Values of counters are left
// out.
func canonical(exprs []expr.Any) string {
	var b strings.Builder
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Counter:
			b.WriteString("counter")
		case *expr.Dynset:
			d := *e
			d.Exprs, d.SetID = nil, 0
			fmt.Fprintf(&b, "%+v{%s}", d, canonical(e.Exprs))
		case *expr.Lookup:
			l := *e
			l.SetID = 0
			fmt.Fprintf(&b, "%+v", l)
		case *expr.Match:
			fmt.Fprintf(&b, "%s.%d(%+v)", e.Name, e.Rev, e.Info)
		case *expr.Target:
			fmt.Fprintf(&b, "%s.%d(%+v)", e.Name, e.Rev, e.Info)
		default:
			fmt.Fprintf(&b, "%T%+v", e, e)
		}
		b.WriteString(";")
	}
	return b.String()
}
