package plugin

import (
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// release detaches what a record stands for. A configuration that the delegate refuses would make DEL fail for ever,
// and with it the end of the container: such an attachment is freed with what the network's configuration says now,
// which may have been corrected, or else with the fields alone that freeing needs.
func (c Conf) release(r record, args *skel.CmdArgs) error {
	err := delegate{r.config, args.Path}.free(args)
	if err == nil || !r.refuses(err) {
		return err
	}
	for _, config := range []object{c.fallback(), r.essence()} {
		if config.text("type") != r.config.text("type") {
			continue // another plugin does not know what this one has made
		}
		if (delegate{config, args.Path}).free(args) == nil {
			return nil
		}
	}
	return err
}

// refuses reports whether an error of the delegate is about the configuration, so that trying again is of no use.
func (r record) refuses(err error) bool {
	switch codeOf(err) {
	case types.ErrTryAgainLater:
		return false
	case types.ErrUnsupportedField, types.ErrDecodingFailure, types.ErrInvalidNetworkConfig:
		return true
	}
	text := err.Error()
	if r.Refused == text {
		return true
	}
	// What the reference plugins say, which have no codes for it.
	for _, word := range []string{"netconf", "cannot unmarshal", "failed to parse"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// essence is the configuration without the fields that only attaching needs. Rules of masquerading are looked for,
// unless the container has never been attached.
func (r record) essence() object {
	out, ipam, had := object{}, object{}, object{}
	keep(out, r.config, "name", "cniVersion", "type", "bridge", "master")
	_ = r.config.decode("ipam", &had) // one that is no object has nothing to be kept
	keep(ipam, had, "type", "dataDir")
	ipam.setDefault("type", defaultIPAM)
	ranges := [][]addressRange{}
	for _, s := range r.subnets() {
		ranges = append(ranges, []addressRange{{s}})
	}
	ipam.set("ranges", ranges)
	out.set("ipam", ipam)
	if r.Refused == "" && r.config.isTrue("ipMasq") {
		out.set("ipMasq", true)
	}
	return out
}

// keep copies those of the fields that are strings.
func keep(to, from object, keys ...string) {
	for _, key := range keys {
		if from.text(key) != "" {
			to[key] = from[key]
		}
	}
}
