package keeper

import (
	"slices"
	"time"

	"flanneld/subnet"
)

// Relation says what a record is to this host, by identity, address and host name.
type Relation int

// The relations. A record is "at this host" if one of its public IPs is this host's.
const (
	// Foreign is the record of another host.
	Foreign Relation = iota
	// Ours carries our identity, our host name and all our addresses, or says what this process last wrote.
	Ours
	// OursChanged is at this host, with our identity and host name, and with another address that is not ours any more.
	OursChanged
	// OursRenamed is at this host, with our identity and another host name.
	OursRenamed
	// OursElsewhere has our identity and is not at this host: the host has moved, or is a clone.
	OursElsewhere
	// Unnamed is at this host and has no identity: a reservation for it, or what it wrote as a host of flannel.
	Unnamed
	// SameMachine is at this host, with our host name and another identity: we have lost our state folder.
	SameMachine
	// OurAddress is at this host, with another identity and host name: a host that had our address, or has it, too.
	OurAddress
)

// How long a claim must stand unanswered before its record may be taken.
const (
	claimWait = 3 * time.Second
	// claimWaitSame is for a record with our host name and our address. A live daemon answers within milliseconds, unless
	// its store is slow; but no second host has both, while the identity alone is also that of a clone.
	claimWaitSame = 500 * time.Millisecond
)

// silence returns how long a claim to such a record must stand unanswered before the record may be taken; 0: it may be
// taken without a claim.
func (r Relation) silence() time.Duration {
	switch r {
	case Foreign, Ours, Unnamed:
		return 0
	case OursChanged, SameMachine:
		return claimWaitSame
	default:
		return claimWait
	}
}

// ours reports whether this host's record may be such a one.
func (r Relation) ours() bool {
	return r == Ours || r == OursChanged || r == OursRenamed || r == OursElsewhere || r == Unnamed
}

// contends reports whether the owner of such a record may be a living host with our address.
func (r Relation) contends() bool { return r == OursRenamed || r == SameMachine || r == OurAddress }

// host is what this host is known by, and what it publishes.
type host struct {
	identity, name string
	attrs4, attrs6 subnet.Attrs   // for subnets of each family
	published      *subnet.Record // the own record as this process has last confirmed it; nil: not yet
}

func (h host) relation(r subnet.Record) Relation {
	at, elsewhere := h.addresses(r)
	switch {
	case h.published != nil && r.Equal(*h.published):
		return Ours
	case r.Identity == h.identity && !at:
		return OursElsewhere
	case !at:
		return Foreign
	case r.Identity == "":
		return Unnamed
	case r.Identity == h.identity && r.Host != h.name:
		return OursRenamed
	case r.Identity == h.identity && elsewhere:
		return OursChanged
	case r.Identity == h.identity:
		return Ours
	case r.Host == h.name:
		return SameMachine
	}
	return OurAddress
}

// addresses reports whether one of the public IPs of a record is ours, and whether one is not.
func (h host) addresses(r subnet.Record) (at, elsewhere bool) {
	for _, l := range r.Leases {
		ours := h.attrs(l).PublicIP
		same := ours.IsValid() && ours == l.PublicIP
		at, elsewhere = at || same, elsewhere || !same
	}
	return at, elsewhere
}

func (h host) attrs(l subnet.Lease) subnet.Attrs {
	if l.Subnet.Addr().Is4() {
		return h.attrs4
	}
	return h.attrs6
}

// publish returns the record that this host writes for the subnets of some leases.
func (h host) publish(leases []subnet.Lease) subnet.Record {
	r := subnet.Record{Identity: h.identity, Host: h.name}
	for _, l := range leases {
		r.Leases = append(r.Leases, subnet.Lease{Subnet: l.Subnet, Attrs: h.attrs(l)})
	}
	return r
}

// claim returns our claim to a record.
func (h host) claim(r subnet.Record) subnet.Record {
	c := h.publish(r.Leases)
	c.Claim = true
	return c
}

// moved reports whether a record names other addresses than we would now.
func (h host) moved(r subnet.Record) bool {
	return slices.ContainsFunc(r.Leases, func(l subnet.Lease) bool { return l.PublicIP != h.attrs(l).PublicIP })
}
