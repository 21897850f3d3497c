package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	"flanneld/subnet"
)

// Generate returns the configuration that the delegate is called with on a host with this subnet file. What the
// network's configuration says wins over what the file says, but for the address ranges.
func (c Conf) Generate(e subnet.Env) ([]byte, error) {
	text, err := json.Marshal(c.generate(e))
	if err != nil {
		return nil, fmt.Errorf("marshal the delegate's configuration: %w", err)
	}
	return text, nil
}

func (c Conf) generate(e subnet.Env) object {
	out := object{}
	maps.Copy(out, c.Delegate)
	out.set("name", c.Name)
	if c.CNIVersion != "" {
		out.set("cniVersion", c.CNIVersion)
	}
	out.setDefault("type", defaultDelegate)
	out.setDefault("ipMasq", !e.IPMasq)
	out.setDefault("mtu", e.MTU)
	if out.text("type") == "bridge" {
		out.setDefault("isGateway", true)
	}
	if c.RuntimeConfig != nil {
		out.set("runtimeConfig", c.RuntimeConfig)
	}
	out.set("ipam", c.ipam(e))
	return out
}

type addressRange struct {
	Subnet netip.Prefix `json:"subnet"`
}

func (c Conf) ipam(e subnet.Env) object {
	out := object{}
	maps.Copy(out, c.IPAM)
	out.setDefault("type", defaultIPAM)
	ranges := [][]addressRange{}
	for _, s := range v4First(e.Subnets) {
		ranges = append(ranges, []addressRange{{s}})
	}
	out.set("ranges", ranges)
	routes, _ := c.routes() // ParseConf has checked them
	for _, n := range v4First(e.Networks) {
		routes = append(routes, json.RawMessage(fmt.Sprintf(`{"dst":%q}`, n)))
	}
	out.set("routes", append([]json.RawMessage{}, routes...))
	return out
}

func v4First(prefixes []netip.Prefix) []netip.Prefix {
	var v4, v6 []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return append(v4, v6...)
}
