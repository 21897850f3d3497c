package firewall

import (
	"bytes"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"flanneld/ip"
)

// flow is what is known of packets between hosts in one direction: enough to tell that most rules are not about them.
type flow struct {
	meta      map[expr.MetaKey][]byte
	network   []byte // IPv4 header
	known     []bool // which of its bytes are
	peer      uint32 // where in it the address of the peer begins, which is only known not to be of loopback
	transport []byte // ports
}

// newFlow returns the packets that a host receives, or sends, over UDP: both ports are the same.
func newFlow(f ip.Flow, inbound bool) *flow {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, f.Link)
	link, addr, peer := expr.MetaKeyOIFNAME, 12, uint32(16)
	if inbound {
		link, addr, peer = expr.MetaKeyIIFNAME, 16, 12
	}
	w := &flow{
		meta: map[expr.MetaKey][]byte{
			link: name, expr.MetaKeyL4PROTO: {unix.IPPROTO_UDP}, expr.MetaKeyNFPROTO: {unix.NFPROTO_IPV4},
			expr.MetaKeyPROTOCOL: {0x08, 0x00},
		},
		network: make([]byte, 20), known: make([]bool, 20), peer: peer,
		transport: []byte{byte(f.Port >> 8), byte(f.Port), byte(f.Port >> 8), byte(f.Port)},
	}
	w.network[9], w.known[9] = unix.IPPROTO_UDP, true
	local := f.Local.As4()
	copy(w.network[addr:], local[:])
	for i := range local {
		w.known[addr+i] = true
	}
	return w
}

// payload returns bytes of a packet; nil: not known.
func (w *flow) payload(p *expr.Payload) []byte {
	from, to := int(p.Offset), int(p.Offset+p.Len)
	switch {
	case p.Base == expr.PayloadBaseNetworkHeader && to <= len(w.network) && !slices.Contains(w.known[from:to], false):
		return w.network[from:to]
	case p.Base == expr.PayloadBaseTransportHeader && to <= len(w.transport):
		return w.transport[from:to]
	}
	return nil
}

// outcome is what becomes of the packets.
type outcome int

const (
	goesOn   outcome = iota // to the next rule, or chain
	accepted                // by this chain, for sure
	returned                // to the chain before, for sure
	touched                 // it may be dropped or changed
)

// path follows the packets through the chains of a table.
type path struct {
	flow   *flow
	rules  func(chain string) ([]*nftables.Rule, error)
	chains map[string][]*nftables.Rule // that were read
	depth  int
	count  int // of rules
}

// maxJumps is how deep chains may be nested (NFT_JUMP_STACK_SIZE, include/net/netfilter/nf_tables.h).
const maxJumps = 16

// maxRules is how many rules are followed. Where there are more, nobody knows what becomes of the packets.
const maxRules = 20000

// through says what becomes of the packets in a chain.
func (p *path) through(chain string) (outcome, error) {
	rules, known := p.chains[chain]
	if !known {
		var err error
		if rules, err = p.rules(chain); err != nil {
			return touched, err
		}
		p.chains[chain] = rules
	}
	p.depth++
	p.count += len(rules)
	if p.depth > maxJumps || p.count > maxRules {
		return touched, nil
	}
	defer func() { p.depth-- }()
	for _, r := range rules {
		if what, err := p.rule(r.Exprs); err != nil || what != goesOn {
			return what, err
		}
	}
	return goesOn, nil
}

// rule says what becomes of the packets in a rule.
func (p *path) rule(all []expr.Any) (outcome, error) {
	var regs registers
	sure, acts := true, false
	for _, e := range all {
		switch e := e.(type) {
		case *expr.Verdict:
			return p.verdict(e, sure)
		case *expr.Counter, *expr.Log, *expr.Notrack:
			acts = true
		case *expr.Target:
			if !slices.Contains([]string{"LOG", "NFLOG", "NOTRACK", "TRACE"}, e.Name) {
				return touched, nil
			}
			acts = true
		default:
			switch p.matches(e, &regs) {
			case never:
				return goesOn, nil
			case perhaps:
				sure = false
			case unknown:
				return touched, nil
			}
		}
	}
	if !acts { // of what the library does not read nothing is left
		return touched, nil
	}
	return goesOn, nil
}

func (p *path) verdict(v *expr.Verdict, sure bool) (outcome, error) {
	what := touched
	switch v.Kind {
	case expr.VerdictAccept:
		what = accepted
	case expr.VerdictReturn:
		what = returned
	case expr.VerdictContinue, expr.VerdictBreak:
		what = goesOn
	case expr.VerdictJump, expr.VerdictGoto:
		var err error
		if what, err = p.through(v.Chain); err != nil {
			return touched, err
		}
		switch {
		case what == touched:
		case v.Kind == expr.VerdictJump && what == returned:
			what = goesOn
		case v.Kind == expr.VerdictGoto && what == goesOn:
			what = returned
		}
	}
	if !sure && what != touched {
		return goesOn, nil
	}
	return what, nil
}

// match says whether an expression lets the packets pass to the next one.
type match int

const (
	always match = iota
	never
	perhaps
	unknown // it may do something to them
)

func (p *path) matches(e expr.Any, regs *registers) match {
	switch e := e.(type) {
	case *expr.Meta:
		if e.SourceRegister {
			return unknown
		}
		regs.load(e.Register, p.flow.meta[e.Key])
	case *expr.Payload:
		if e.OperationType != expr.PayloadLoad {
			return unknown
		}
		regs.load(e.DestRegister, p.flow.payload(e))
		regs.peer = e.Base == expr.PayloadBaseNetworkHeader && e.Offset == p.flow.peer
	case *expr.Immediate:
		regs.load(e.Register, e.Data)
	case *expr.Bitwise:
		peer := regs.peer && regs.number == e.SourceRegister && len(e.Mask) > 0 && e.Mask[0] == 0xff
		regs.load(e.DestRegister, masked(regs.take(e.SourceRegister), e))
		regs.peer = peer
	case *expr.Cmp:
		return regs.compare(e)
	case *expr.Range:
		have := regs.take(e.Register)
		if e.Op != expr.CmpOpEq || len(have) != len(e.FromData) || len(have) != len(e.ToData) {
			return perhaps
		}
		return when(bytes.Compare(have, e.FromData) >= 0 && bytes.Compare(have, e.ToData) <= 0)
	case *expr.Ct:
		if e.SourceRegister {
			return unknown
		}
		regs.load(e.Register, nil)
	case *expr.Lookup:
		if e.IsDestRegSet { // a map, perhaps of verdicts
			return unknown
		}
		return perhaps
	case *expr.Match:
		if e.Name == "comment" {
			return always
		}
		return perhaps
	case *expr.Fib:
		regs.load(e.Register, nil)
	case *expr.Limit:
		return perhaps
	default:
		return unknown
	}
	return always
}

func masked(have []byte, e *expr.Bitwise) []byte {
	if len(have) == 0 || len(e.Mask) != len(have) || len(e.Xor) != len(have) {
		return nil
	}
	out := make([]byte, len(have))
	for i := range have {
		out[i] = have[i]&e.Mask[i] ^ e.Xor[i]
	}
	return out
}

// compared compares what is known; data that are shorter are those of a name with anything behind it.
func compared(have []byte, op expr.CmpOp, data []byte) match {
	if len(have) < len(data) || len(data) == 0 {
		return perhaps
	}
	c := bytes.Compare(have[:len(data)], data)
	switch op {
	case expr.CmpOpEq:
		return when(c == 0)
	case expr.CmpOpNeq:
		return when(c != 0)
	case expr.CmpOpLt:
		return when(c < 0)
	case expr.CmpOpLte:
		return when(c <= 0)
	case expr.CmpOpGt:
		return when(c > 0)
	case expr.CmpOpGte:
		return when(c >= 0)
	}
	return perhaps
}

func when(it bool) match {
	if it {
		return always
	}
	return never
}

// registers are those of nf_tables, of which one is used at a time: what was loaded last, and where.
type registers struct {
	number uint32
	value  []byte
	peer   bool // it begins like the address of the peer
}

func (r *registers) load(number uint32, value []byte) { *r = registers{number: number, value: value} }

// compare compares what is in a register with data.
func (r *registers) compare(e *expr.Cmp) match {
	const loopback = 127 // 127.0.0.0/8
	peer := r.peer && r.number == e.Register && len(e.Data) > 0 && e.Data[0] == loopback
	value := r.take(e.Register)
	switch {
	case peer && e.Op == expr.CmpOpEq:
		return never
	case peer && e.Op == expr.CmpOpNeq:
		return always
	case e.Op == expr.CmpOpGte: // a range is written as two comparisons, the upper end is to follow
		*r = registers{number: e.Register, value: value}
	}
	return compared(value, e.Op, e.Data)
}

// take returns what is in a register; nil: not known. It is used up then: expressions that the library does not read
// may have loaded something else.
func (r *registers) take(number uint32) []byte {
	if r.number != number {
		return nil
	}
	v := r.value
	*r = registers{}
	return v
}
