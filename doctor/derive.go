package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"flanneld/ip"
	"flanneld/subnet"
)

// Derived is what follows from the facts about the daemon and the store: what this host should have.
type Derived struct {
	Config    subnet.Config
	ConfigErr error
	Subnets   []netip.Prefix // own
	Devices   []string
	MTU       int
	Peers     []subnet.Lease                 // of other hosts, as this host should know them
	Records   map[netip.Prefix]subnet.Record // those of the peers, by subnet
}

// Derive fills in Derived from the facts about the daemon, its state and the store.
func (f *Facts) Derive() {
	f.Subnets, f.Devices, f.MTU = f.Status.Subnets, f.Status.Devices, f.Status.MTU
	if f.DaemonErr != nil || len(f.Subnets) == 0 {
		f.Subnets, f.Devices, f.MTU = f.State.Own.Prefixes(), f.State.Links, f.Env.MTU
	}
	if f.StoreErr == nil {
		f.Config, f.ConfigErr = subnet.ParseConfig(f.Snapshot.Config)
	}
	if f.StoreErr != nil || f.ConfigErr != nil {
		f.Config, _ = subnet.ParseConfig([]byte(f.State.Config)) // an empty one, where there is none
	}
	if f.inKubernetes() {
		f.Config = f.Config.Assigned() // a podCIDR may have any length
	}
	f.Peers, f.Records = nil, map[netip.Prefix]subnet.Record{}
	for _, r := range f.records() {
		if r.Identity != "" && r.Identity == f.State.Identity {
			continue
		}
		for _, l := range r.Leases {
			f.Records[l.Subnet] = r
			pool, ok := f.Config.Pool(l.Subnet)
			if ok && pool.Holds(l.Subnet) && l.BackendType == f.Config.BackendType && !slices.Contains(f.Subnets, l.Subnet) {
				f.Peers = append(f.Peers, l)
			}
		}
	}
}

// records are those of hosts that are there: of the store, else as the daemon remembers them.
func (f *Facts) records() []subnet.Record {
	if f.StoreErr != nil {
		return f.State.Memory.Peers(f.State.Identity)
	}
	var out []subnet.Record
	for _, e := range f.Snapshot.Entries {
		if !Unclaimed(*e) {
			out = append(out, e.Record)
		}
	}
	return out
}

// Unclaimed reports whether a record is a reservation whose host has not taken it yet: nobody is there to be reached.
// That of a host which has another subnet names its identity; then the data of the backend are missing.
func Unclaimed(e subnet.Entry) bool {
	return e.LeaseID == 0 && !slices.ContainsFunc(e.Leases, func(l subnet.Lease) bool {
		return l.BackendData != "" || e.Identity != "" && l.BackendType != "vxlan" && l.BackendType != "wireguard"
	})
}

// Unfit says which records do not fit a network configuration.
func Unfit(c subnet.Config, entries []*subnet.Entry) []string {
	var out []string
	for _, e := range entries {
		for _, l := range e.Leases {
			pool, ok := c.Pool(l.Subnet)
			switch {
			case !ok:
				out = append(out, fmt.Sprintf("%s of %s: its address family is not enabled", l.Subnet, e.Record))
			case !pool.Holds(l.Subnet):
				out = append(out, fmt.Sprintf("%s of %s: not a /%d inside %s", l.Subnet, e.Record, pool.SubnetLen, pool.Network))
			case l.BackendType != c.BackendType && !Unclaimed(*e):
				out = append(out,
					fmt.Sprintf("%s of %s: its backend is %s, that of the network %s", l.Subnet, e.Record, l.BackendType,
						c.BackendType))
			}
		}
	}
	return out
}

// Denied returns the error if what only root may read could not be read.
func (f *Facts) Denied() error {
	for _, err := range []error{f.DaemonErr, f.StateErr} {
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// Bridges returns the bridges of container runtimes that are in the network, or have been.
func (f *Facts) Bridges() []ip.Interface {
	var out []ip.Interface
	for _, l := range f.Links {
		if bridgeLike(l.Name) && slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return f.inNetwork(p.Masked()) }) {
			out = append(out, l)
		}
	}
	return out
}

func bridgeLike(name string) bool {
	return strings.HasPrefix(name, "cni") || strings.HasPrefix(name, "docker") || strings.HasPrefix(name, "br-")
}

// Forwarders are the interfaces that packets of containers arrive on: the devices of the network, the bridges and
// the underlay.
func (f *Facts) Forwarders() []string {
	out := slices.Clone(f.Devices)
	for _, b := range f.Bridges() {
		out = append(out, b.Name)
	}
	if f.Status.Interface != "" {
		out = append(out, f.Status.Interface)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Unreached returns the peers that do not answer probes, or only by a refusal.
func (f *Facts) Unreached() (lost []netip.Prefix) {
	for p, r := range f.Probes {
		if r.Down() || r.Silent() {
			lost = append(lost, p)
		}
	}
	slices.SortFunc(lost, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return lost
}

// Lease returns that of a peer; the zero value if there is none.
func (f *Facts) Lease(p netip.Prefix) subnet.Lease {
	i := slices.IndexFunc(f.Peers, func(l subnet.Lease) bool { return l.Subnet == p })
	if i < 0 {
		return subnet.Lease{}
	}
	return f.Peers[i]
}

// link returns a link by its name.
func (f *Facts) link(name string) (ip.Interface, bool) {
	i := slices.IndexFunc(f.Links, func(l ip.Interface) bool { return l.Name == name })
	if i < 0 {
		return ip.Interface{}, false
	}
	return f.Links[i], true
}

// inNetwork reports whether a range overlaps the network.
func (f *Facts) inNetwork(p netip.Prefix) bool {
	return slices.ContainsFunc(f.Config.Networks(), p.Overlaps)
}

// ownSubnet reports whether an address is of this host's subnets.
func (f *Facts) ownSubnet(a netip.Addr) bool {
	return slices.ContainsFunc(f.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// named names a peer for a message.
func (f *Facts) named(p netip.Prefix) string {
	r, ok := f.Records[p]
	if !ok {
		return p.String()
	}
	return fmt.Sprintf("%s at %s", p, r)
}

// tunnelPort returns the UDP port of the network's tunnel; 0: it has none.
func (f *Facts) tunnelPort() uint16 {
	options := struct{ Port, ListenPort uint16 }{}
	_ = json.Unmarshal(f.Config.Backend, &options) // names without regard to case; a wrong option is found elsewhere
	port, usual := options.Port, map[string]uint16{"vxlan": 8472, "udp": 8285, "wireguard": 51820}[f.Config.BackendType]
	if f.Config.BackendType == "wireguard" {
		port = options.ListenPort
	}
	if port == 0 || usual == 0 {
		return usual
	}
	return port
}
