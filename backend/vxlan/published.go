package vxlan

import (
	"flanneld/ip"
	"flanneld/subnet"
)

// Published returns the hardware addresses that a record of this host tells its peers, by device. Whoever goes on with
// them is reached by peers that have not heard of the change.
func Published(c subnet.Config, r subnet.Record) map[string]ip.MAC {
	o, err := ParseOptions(c.Backend)
	if err != nil {
		return nil
	}
	out := map[string]ip.MAC{}
	for _, l := range r.Leases {
		if d, err := parseData(l.BackendData); err == nil && o.checkVNI(d) == nil {
			out[o.device(l.Subnet).name] = d.VtepMAC
		}
	}
	return out
}

// Devices returns the names of the devices that a network needs.
func Devices(c subnet.Config) []string {
	o, err := ParseOptions(c.Backend)
	if err != nil {
		return nil
	}
	var out []string
	for _, network := range c.Networks() {
		out = append(out, o.device(network).name)
	}
	return out
}
