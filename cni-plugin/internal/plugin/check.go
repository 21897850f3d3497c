package plugin

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// check holds an attachment against what should stand: it is saved, its range is still this host's, and the delegate
// finds all that it made.
func check(args *skel.CmdArgs) error {
	c, err := ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	if err := container(args); err != nil {
		return err
	}
	e, err := store{c.DataDir}.find(Key{args.ContainerID, args.IfName}, true)
	if err != nil {
		return types.NewError(types.ErrUnknownContainer, err.Error(),
			"the container is not attached to this network: DEL and ADD it")
	}
	defer e.close()
	r, err := parseRecord(e.text)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, e.path+": "+err.Error(), "DEL and ADD the container")
	}
	env, err := c.env()
	if err != nil {
		return err
	}
	if had := r.subnets(); !sameSubnets(had, env.Subnets) {
		return types.NewError(errSubnetChanged,
			fmt.Sprintf("the container has addresses of %s, but this host's subnet is %s now: no other host reaches it",
				join(had), join(env.Subnets)), "restart the container: it gets an address of the new subnet")
	}
	if c.PrevResult != nil {
		r.config["prevResult"] = c.PrevResult
	}
	return delegate{r.config, args.Path}.call("CHECK", args)
}

func sameSubnets(a, b []netip.Prefix) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Prefix.Compare)
	slices.SortFunc(b, netip.Prefix.Compare)
	return slices.Equal(a, b)
}
